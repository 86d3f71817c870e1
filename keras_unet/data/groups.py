"""Groups of images that belong together: frames of a film, slices of a stack, tiles of a slide.

Images of one group look alike. A score on frames of a film that was trained on is too high for
another film, so whole groups are held out where there are several (`draw_held_out`).

Groups are found in this order:

1. Frames of a Cell Tracking Challenge sequence, and planes of a stack, are a group.
2. Other images are grouped by the stem of their names, without a number or coordinates at the end:
   `slide3_x0_y512` and `slide3_x512_y0`, `filmA_t012`, `a-1` and `a-2`, see `split_name`.
3. Stems are certain if the names have coordinates, or if there are three groups or more of which
   none holds more than half of the images. Otherwise the names say too little: `nucleus_001` to
   `nucleus_200` may be a film or independent images. Such a stem is a group if consecutive images
   look alike (`look_alike`); if not, each of its images is by itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.console import counted, some
from keras_unet.data.names import strip_image_affix

Grouping = str | Sequence[str]
"""`"auto"`, `"none"`, a regular expression, or the name of each image's group."""

Group = str | None
"""Name of a group; None for an image by itself."""

Relation = Literal["images", "groups", "part of a group"]
"""Held-out images: independent of the training, whole groups, or of groups that were trained on."""

ALIKE = 0.2
"""Correlation of consecutive images, at the 25th percentile, from which they are one group.

Measured: 0.33 in the serial sections of ISBI 2012, 0.62 and more in films (PhC-C2DL-PSC,
Fluo-N2DL-HeLa); 0.005 and less in independent images (DSB 2018, BBBC039, Usiigaci).
"""

_SEVERAL = 3  # groups, from which the smallest is at most a third of the images
_FEWEST_ALIKE = 4  # images
_MOST_PAIRS = 20
_SIDE = 512  # pixels of an image's center that are compared
_REDUCED = 128  # pixels of the same, reduced

_SEPARATOR = r"[\s_.,;(\[-]"
_COORDINATE = (
    r"(?:[xyzt]|row|col|column|frame|slice|plane|section|time)[=_-]?\d+"
    r"|[dwh]=\d+(?:\.\d+)?|r\d+[_-]?c\d+|\d+d\d+h\d+m"
)
_COORDINATES = re.compile(
    rf"(?:(?:^|{_SEPARATOR}+)(?:{_COORDINATE})[)\]]*)+$", re.ASCII | re.IGNORECASE
)
_NUMBER = re.compile(r"[\s_.,;(\[#-]*\d+[)\]]*$", re.ASCII)


def check_grouping(groups: Grouping) -> None:
    """Checks the argument `groups`.

    Raises:
        ValueError: If it is a text that is no regular expression, or holds something but names.
    """
    if not isinstance(groups, str):
        if not all(isinstance(name, str) for name in groups):
            raise ValueError(
                f"groups must hold the name of each image's group, as text. Received: {groups!r}"
            )
        return
    try:
        re.compile(groups)
    except re.error as error:
        raise ValueError(
            'groups must be "auto", "none" or a regular expression of a name\'s part, such as '
            f"(slide\\d+). Received: {groups!r} ({error})"
        ) from error


def group_images(
    names: Sequence[str],
    known: Sequence[Group],
    images: Sequence[NDArray[Any]],
    groups: Grouping = "auto",
) -> tuple[list[Group], tuple[str, ...]]:
    """Finds the group of each image, or takes those that are given.

    Args:
        names: Names of the images.
        known: Sequence or stack of each image, or None.
        images: Grey values, each `(height, width, channels)`.
        groups: "auto" to find them; "none" for each image by itself; a regular expression whose
            first group (or, without any, whose match) is the name of the image's group; or the name
            of each image's group.

    Returns:
        The group of each image, and notes on them, one line each.

    Raises:
        ValueError: If the regular expression does not match a name, or the number of names differs.

    Example:
        >>> group_images(["a_1", "a_2", "b_1"], [None] * 3, [], "([ab])")
        (['a', 'a', 'b'], ('groups of images: a, b',))
    """
    check_grouping(groups)
    if groups == "none":
        return [None] * len(names), ()
    if groups == "auto":
        found, notes = _find_groups(names, known, images)
    elif isinstance(groups, str):
        found, notes = [_match(groups, name) for name in names], ()
    else:
        if len(groups) != len(names):
            raise ValueError(
                "groups must hold one name for each image. "
                f"Received: {counted(len(groups), 'name')} for {counted(len(names), 'image')}"
            )
        found, notes = list(groups), ()
    listed = sorted({group for group in found if group is not None}, key=natural_order)
    return found, ((f"groups of images: {some(listed)}",) if listed else ()) + notes


def _match(pattern: str, name: str) -> str:
    match = re.search(pattern, name)
    group = match and match[min(1, len(match.groups()))]
    if group is None:
        raise ValueError(
            f"groups must match the name of every image. Received: {pattern!r}, which does not "
            f"match {name}"
        )
    return group


def _find_groups(
    names: Sequence[str], known: Sequence[Group], images: Sequence[NDArray[Any]]
) -> tuple[list[Group], tuple[str, ...]]:
    found, stems, located = list(known), defaultdict(list), set()
    for index, name in enumerate(names):
        if known[index] is None:
            stem, has_coordinates = split_name(name)
            stems[stem].append(index)
            located |= {stem} if has_coordinates else set()
    sizes = [len(members) for members in stems.values()]
    groups = len(sizes) + len(set(known) - {None})
    is_certain = groups >= _SEVERAL and max(sizes, default=0) <= len(names) / 2
    notes, unlike = [], []
    for stem, members in stems.items():
        ordered = sorted(members, key=lambda index: natural_order(names[index]))
        if len(members) < 2:
            continue
        label = stem or f"{names[ordered[0]]} to {names[ordered[-1]]}"
        if not is_certain and stem not in located:
            if not look_alike([images[index] for index in ordered]):
                unlike.append(label)
                continue
            notes.append(f"consecutive images look alike, so they are one group: {label}")
        for index in members:
            found[index] = label
    if len(stems) > 1 and unlike:
        notes.append(
            f"no groups: {some(unlike)}; too few names to hold one of them out, and their images "
            "do not look alike"
        )
    return found, tuple(notes)


def split_name(name: str) -> tuple[str, bool]:
    """Returns the stem of a name, and whether coordinates in a film, stack or slide follow it.

    Coordinates are such as `x0`, `y=512`, `z03`, `t012`, `row2`, `r1_c2`, `slice_07`, `frame12` or
    `02d16h00m`, after a separator. Without any, a number at the end is removed. A name that is a
    single letter or word with a number, such as `x1`, says nothing of coordinates.

    Examples:
        >>> split_name("slide3_x0_y512"), split_name("slide 3 [x=0,y=512,w=256,h=256]")
        (('slide3', True), ('slide 3', True))
        >>> split_name("filmA_t012"), split_name("A172_C7_1_02d16h00m_4")
        (('filmA', True), ('A172_C7_1', True))
        >>> split_name("a-1"), split_name("007_img"), split_name("T4_01"), split_name("cells")
        (('a', False), ('', False), ('T4', False), ('cells', False))
    """
    name = strip_image_affix(name) or name
    stem = _COORDINATES.sub("", name)
    if stem != name:
        return stem, bool(stem) or len(re.findall(r"\d+", name)) > 1
    numberless = _NUMBER.sub("", name)
    stem = _COORDINATES.sub("", numberless)
    return (stem, True) if stem and stem != numberless else (numberless, False)


def look_alike(images: Sequence[NDArray[Any]]) -> bool:
    """Returns whether most consecutive images look alike, as frames of a film do.

    The centers of the images, without brightness and shading, are correlated. Images of different
    sizes are not alike.

    Args:
        images: Grey values, each `(height, width, channels)`, in the order of their names.
    """
    if len(images) < _FEWEST_ALIKE:
        return False
    pairs = len(images) - 1
    first = np.unique(np.linspace(0, pairs - 1, min(_MOST_PAIRS, pairs)).round().astype(int))
    details = {index: _detail(images[index]) for index in {*first, *(first + 1)}}
    correlations = [_correlation(details[index], details[index + 1]) for index in first]
    return bool(np.percentile(correlations, 25) >= ALIKE)


def _detail(image: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the center of an image, reduced, between 1 and 8 pixels of the reduced image."""
    height, width = image.shape[:2]
    rows, columns = min(height, _SIDE), min(width, _SIDE)
    factor = max(1, min(rows, columns) // _REDUCED)
    top, left = (height - rows) // 2, (width - columns) // 2
    rows, columns = rows // factor, columns // factor
    center = image[top : top + rows * factor, left : left + columns * factor].mean(axis=-1)
    reduced = center.reshape(rows, factor, columns, factor).mean(axis=(1, 3), dtype=np.float64)
    return ndimage.gaussian_filter(reduced, 1) - ndimage.gaussian_filter(reduced, 8)


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    if first.shape != second.shape:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale else 0.0


def natural_order(name: str) -> list[Any]:
    """Returns a key that sorts names by the numbers in them.

    >>> sorted(["a10", "a9", "b"], key=natural_order)
    ['a9', 'a10', 'b']
    """
    parts = re.split(r"(\d+)", name, flags=re.ASCII)  # texts and numbers take turns
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def members_of(names: Sequence[str], groups: Sequence[Group]) -> list[list[int]]:
    """Lists the positions of each group's images in the order of their names.

    An image by itself is a group. The groups are in the order of their first images.

    >>> members_of(["a10", "b", "a9"], ["a", None, "a"])
    [[2, 0], [1]]
    """
    members: dict[object, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[index if group is None else group].append(index)
    return [
        sorted(group, key=lambda index: natural_order(names[index])) for group in members.values()
    ]


def draw_held_out(
    names: Sequence[str], groups: Sequence[Group], fraction: float, seed: int
) -> set[int]:
    """Draws the images for validation: whole groups where there are several.

    Groups are taken in random order, each if it brings the number of images closer to the fraction,
    and at least one is left for training. If none does, the smallest is taken where there are three
    or more. Otherwise the images at the end of the largest are taken, in the order of their names.

    Args:
        names: Names of the images.
        groups: Group of each image; None for an image by itself.
        fraction: Fraction of the images, at least 0 and less than 1.
        seed: Seed of the draw.

    Returns:
        Positions of the images: none if the fraction is 0 or there is one image, and never all.

    Example:
        >>> sorted(draw_held_out(["t1", "t2", "t3"], ["film"] * 3, 0.3, seed=0))
        [2]
    """
    if fraction == 0 or len(names) < 2:
        return set()
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    members = members_of(names, groups)
    drawn = [members[index] for index in np.random.default_rng(seed).permutation(len(members))]
    taken: list[list[int]] = []
    for group in drawn:
        held_out = sum(map(len, taken))
        is_closer = abs(held_out + len(group) - count) < count - held_out
        if is_closer and len(taken) < len(drawn) - 1:
            taken.append(group)
    if not taken and len(drawn) >= _SEVERAL:
        taken = [min(drawn, key=len)]
    return set(chain(*taken)) if taken else set(max(drawn, key=len)[-count:])


@dataclass(frozen=True)
class HeldOut:
    """Relation of the images for validation to those of the training.

    Attributes:
        kind: "images", each by itself; "groups", of which none was trained on; or "part of a
            group" that was trained on.
        groups: Names of the groups held out, or of those that were trained on as well.
        images: Number of images for validation.
    """

    kind: Relation
    groups: tuple[str, ...]
    images: int

    @classmethod
    def of(cls, training: Sequence[Group], held_out: Sequence[Group]) -> Self:
        """Compares the groups of the images for training and of those for validation.

        >>> HeldOut.of(["a", None], ["b", "b"])
        HeldOut(kind='groups', groups=('b',), images=2)
        >>> HeldOut.of(["a", "b"], ["b", None]).kind, HeldOut.of(["a"], [None]).kind
        ('part of a group', 'images')
        """
        groups = {group for group in held_out if group is not None}
        shared = groups.intersection(training)
        kind: Relation = "part of a group" if shared else "groups" if groups else "images"
        names = sorted(shared or groups, key=natural_order)
        return cls(kind, tuple(names), len(held_out))

    @property
    def title(self) -> str:
        """The images that a score is of, as a part of a heading."""
        return {
            "images": "images held out",
            "groups": "groups held out",
            "part of a group": "images held out of the same film, stack or slide",
        }[self.kind]

    def describe(self) -> str:
        """Returns the images that a score is of, and what it does not promise.

        >>> HeldOut("images", (), 4).describe()
        '4 images held out'
        >>> HeldOut("groups", ("a", "b"), 9).describe()
        '9 images of 2 groups that were not trained on (a, b)'
        >>> HeldOut("part of a group", ("01",), 1).describe()
        '1 image of the same film, stack or slide as the training (01); another may score lower'
        """
        images, names = counted(self.images, "image"), some(list(self.groups))
        if self.kind == "images":
            return f"{images} held out"
        if self.kind == "groups":
            were = "was" if len(self.groups) == 1 else "were"
            return (
                f"{images} of {counted(len(self.groups), 'group')} that {were} not trained on "
                f"({names})"
            )
        return (
            f"{images} of the same film, stack or slide as the training ({names}); another may "
            "score lower"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for the record of a run."""
        return {"kind": self.kind, "groups": list(self.groups), "images": self.images}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuilds it from the result of `to_dict`."""
        return cls(values["kind"], tuple(values["groups"]), values["images"])
