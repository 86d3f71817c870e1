"""Names that belong together: an image's, and those that programs give its labels.

`x.tif` has labels called `x`, `x_mask`, `x_cp_masks`, `seg-x` and so on; the image may be called
`x_img` or `image_x`. The word is read in any case, and parted from the rest by `_` or `-`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

_OF_LABELS = (
    "cp_masks?|masks?|labels?|seg|segmentation|gt|ground_truth|instances?|annotations?|annotated"
)
_OF_IMAGES = "images?|imgs?"


def _affixed(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{words})[_-](.+)|(.+?)[_-](?:{words})", re.IGNORECASE)


_LABELS, _IMAGE = _affixed(_OF_LABELS), _affixed(_OF_IMAGES)

Naming = Callable[[str], str | None]


def labels_of(stem: str) -> str | None:
    """Returns what the labels of that name are labels of, or None where no affix says.

    Examples:
        >>> labels_of("x_cp_masks"), labels_of("MASK_x"), labels_of("x"), labels_of("mask")
        ('x', 'x', None, None)
    """
    return _without(_LABELS, stem)


def image_of(stem: str) -> str | None:
    """Returns what the image of that name shows, or None where no affix says.

    Examples:
        >>> image_of("x_img"), image_of("image-x"), image_of("x")
        ('x', 'x', None)
    """
    return _without(_IMAGE, stem)


def matched(images: Iterable[str], labels: Iterable[str]) -> dict[str, str]:
    """Finds the labels of each image by their names.

    Equal names win, then labels with an affix, then images with one; names that are equal but for
    their case come last.

    Args:
        images: Names of images, each once.
        labels: Names of labels, each once.

    Returns:
        For each image that has labels the name of these.

    Raises:
        Ambiguous: Two images or two labels lay claim to one another with equal right.

    Example:
        >>> matched(["a", "b_img", "C", "d"], ["a", "a_mask", "b_seg", "c"])
        {'a': 'a', 'b_img': 'b_seg', 'C': 'c'}
    """
    left, right = dict.fromkeys(images), dict.fromkeys(labels)
    found: dict[str, str] = {}
    for fold in (str, str.casefold):
        for image_name, labels_name in _WAYS:
            mine, theirs = _grouped(left, image_name, fold), _grouped(right, labels_name, fold)
            for key in sorted(mine.keys() & theirs.keys()):
                if len(mine[key]) > 1 or len(theirs[key]) > 1:
                    raise Ambiguous(mine[key], theirs[key])
            for key in [key for key in mine if key in theirs]:
                (image,), (label,) = mine[key], theirs[key]
                found[image] = label
                del left[image], right[label]
    return found


class Ambiguous(ValueError):  # noqa: N818 - it is a finding, which `pairs` puts into words
    """Images and labels of which nobody can tell which go together."""

    def __init__(self, images: list[str], labels: list[str]) -> None:
        """Takes their names."""
        super().__init__(f"{', '.join(images)} with {', '.join(labels)}")
        self.images, self.labels = images, labels


def _itself(stem: str) -> str | None:
    return stem


_WAYS: tuple[tuple[Naming, Naming], ...] = (
    (_itself, _itself),
    (_itself, labels_of),
    (image_of, _itself),
    (image_of, labels_of),
)


def _without(affix: re.Pattern[str], stem: str) -> str | None:
    match = affix.fullmatch(stem)
    return None if match is None else match[1] or match[2]


def _grouped(
    stems: Iterable[str], name: Naming, fold: Callable[[str], str]
) -> Mapping[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        if (named := name(stem)) is not None:
            groups[fold(named)].append(stem)
    return groups
