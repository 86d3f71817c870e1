"""Matching of the names of images and label files.

The labels of `x.tif` are called `x`, `x_mask`, `x_cp_masks`, `seg-x` and so on; the image may be
called `x_img` or `image_x`. Affixes are case-insensitive and separated by `_` or `-`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

_LABEL_AFFIXES = (
    "cp_masks?|masks?|labels?|seg|segmentation|gt|ground_truth|instances?|annotations?|annotated|"
    "rois?|roiset"
)
_IMAGE_AFFIXES = "images?|imgs?"


def _affix_pattern(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{words})[_-](.+)|(.+?)[_-](?:{words})", re.IGNORECASE)


_LABELS, _IMAGE = _affix_pattern(_LABEL_AFFIXES), _affix_pattern(_IMAGE_AFFIXES)

Naming = Callable[[str], str | None]
"""A function from a stem to the name to compare, or None."""


def strip_label_affix(stem: str) -> str | None:
    """Removes the affix of a label file's name; returns None if it has none.

    Examples:
        >>> [strip_label_affix(stem) for stem in ("x_cp_masks", "MASK_x", "x", "mask")]
        ['x', 'x', None, None]
    """
    return _strip(_LABELS, stem)


def strip_image_affix(stem: str) -> str | None:
    """Removes the affix of an image's name; returns None if it has none.

    Examples:
        >>> strip_image_affix("x_img"), strip_image_affix("image-x"), strip_image_affix("x")
        ('x', 'x', None)
    """
    return _strip(_IMAGE, stem)


def match_names(images: Iterable[str], labels: Iterable[str]) -> dict[str, str]:
    """Finds the labels of each image by their names.

    Equal names take precedence over labels with an affix, and these over images with an affix;
    names that differ in case are matched last.

    Args:
        images: Names of images, each once.
        labels: Names of labels, each once.

    Returns:
        Names of the labels of each image that has some.

    Raises:
        AmbiguousNamesError: If several images or labels match equally well.

    Example:
        >>> match_names(["a", "b_img", "C", "d"], ["a", "a_mask", "b_seg", "c"])
        {'a': 'a', 'b_img': 'b_seg', 'C': 'c'}
    """
    images_left, labels_left = dict.fromkeys(images), dict.fromkeys(labels)
    matches: dict[str, str] = {}
    for fold in (str, str.casefold):
        for image_naming, label_naming in _NAMINGS:
            image_groups = _group(images_left, image_naming, fold)
            label_groups = _group(labels_left, label_naming, fold)
            for name in sorted(image_groups.keys() & label_groups.keys()):
                if len(image_groups[name]) > 1 or len(label_groups[name]) > 1:
                    raise AmbiguousNamesError(image_groups[name], label_groups[name])
            for name in [name for name in image_groups if name in label_groups]:
                (image,), (label,) = image_groups[name], label_groups[name]
                matches[image] = label
                del images_left[image], labels_left[label]
    return matches


class AmbiguousNamesError(ValueError):
    """Error for images and labels that match equally well.

    Attributes:
        images: Names of the images.
        labels: Names of the labels.
    """

    def __init__(self, images: list[str], labels: list[str]) -> None:
        """Stores the names."""
        super().__init__(f"{', '.join(images)} with {', '.join(labels)}")
        self.images, self.labels = images, labels


def _unchanged(stem: str) -> str | None:
    return stem


_NAMINGS: tuple[tuple[Naming, Naming], ...] = (
    (_unchanged, _unchanged),
    (_unchanged, strip_label_affix),
    (strip_image_affix, _unchanged),
    (strip_image_affix, strip_label_affix),
)


def _strip(affix: re.Pattern[str], stem: str) -> str | None:
    match = affix.fullmatch(stem)
    return None if match is None else match[1] or match[2]


def _group(
    stems: Iterable[str], naming: Naming, fold: Callable[[str], str]
) -> Mapping[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        if (name := naming(stem)) is not None:
            groups[fold(name)].append(stem)
    return groups
