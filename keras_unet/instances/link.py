"""Linking of objects through the planes of a volume or the frames of a film.

Objects of consecutive planes are linked by a global assignment, on overlap and distance. An object
that is missing in one plane is linked over the gap. In films, objects divide.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from skimage.segmentation import relabel_sequential

from keras_unet.metrics.tracking import Track

Along = Literal["z", "t"]
Labels = NDArray[np.integer]

# Lengths are in widths of the objects, those of disks of the same area.
_REACH = 1.5  # largest distance of the centers of an object in consecutive frames
_LEAST_OVERLAP = 0.25  # of two planes of an object in a volume, as a fraction of the smaller area
_SIZE_SHARE = 0.1  # of the cost of a link, for the ratio of the areas; the rest is for the place
_LARGEST_RATIO = 4.0  # of areas, at which their cost is all of its share
_GAP_COST = 0.3  # of a link over a missing plane
_MIDDLE = 1.0  # largest distance of the middle of two daughters from their mother
_APART = 2.5  # largest distance of two daughters
_LARGEST_DAUGHTER = 0.9  # of the area of the mother
_LEAST_DAUGHTER = 0.4  # of the area of the other daughter


@dataclass(frozen=True, eq=False)
class _Plane:
    """Objects of a plane, ordered by row and column of their centers.

    Attributes:
        index: Number of the plane.
        labels: Label image, in which the objects are 1 ... n in this order.
        numbers: Label of each object in the original, `(objects,)`.
        areas: Pixels of each object.
        centers: Mean row and column of each object, `(objects, 2)`.
    """

    index: int
    labels: Labels
    numbers: NDArray[np.integer]
    areas: NDArray[np.float64]
    centers: NDArray[np.float64]

    @classmethod
    def of(cls, index: int, labels: Labels) -> _Plane:
        relabeled, _, originals = relabel_sequential(labels)
        compact = np.asarray(relabeled, np.intp)
        numbers = np.asarray(originals)[1:]
        areas = np.bincount(compact.ravel(), minlength=1 + len(numbers))[1:].astype(float)
        found = range(1, 1 + len(numbers))
        centers = np.reshape(ndimage.center_of_mass(compact > 0, compact, found), (-1, 2))
        order = np.lexsort((areas, *centers.T[::-1]))
        ranks = np.zeros(1 + len(numbers), np.int64)
        ranks[1 + order] = found
        return cls(index, ranks[compact], numbers[order], areas[order], centers[order])

    @property
    def widths(self) -> NDArray[np.float64]:
        """Diameters of disks of the areas of the objects."""
        return np.asarray(2 * np.sqrt(self.areas / np.pi))


@dataclass(frozen=True, eq=False)
class Links:
    """Result of `link_objects`.

    Attributes:
        numbers: For each plane, the track of each of its labels.
        tracks: The tracks, by number.
    """

    numbers: tuple[dict[int, int], ...]
    tracks: tuple[Track, ...]

    def without_gaps(self) -> Links:
        """Returns the links with a new track after each gap, whose parent is the one before."""
        present: dict[int, list[int]] = {track.number: [] for track in self.tracks}
        for index, numbers in enumerate(self.numbers):
            for number in numbers.values():
                present[number].append(index)
        tracks: list[Track] = []
        last: dict[int, int] = {}  # number of a track after its gaps
        numbers_of: list[dict[int, int]] = [{} for _ in self.numbers]
        new_numbers = itertools.count(len(self.tracks) + 1)
        for track in self.tracks:
            parent = last.get(track.parent, 0)
            for at, part in enumerate(_runs(present[track.number])):
                number = next(new_numbers) if at else track.number
                tracks.append(Track(number, part[0], part[-1], parent))
                for index in part:
                    numbers_of[index][track.number] = number
                last[track.number] = parent = number
        renumbered = [
            {label: new[number] for label, number in old.items()}
            for old, new in zip(self.numbers, numbers_of, strict=True)
        ]
        return Links(tuple(renumbered), tuple(sorted(tracks)))

    def relabel(self, index: int, labels: Labels) -> Labels:
        """Returns a plane with the numbers of the tracks in place of its labels.

        Args:
            index: Number of the plane.
            labels: The label image that was linked.
        """
        values, inverse = np.unique(labels, return_inverse=True)
        numbers = [self.numbers[index].get(value, 0) for value in values.tolist()]
        found: Labels = np.array(numbers, np.int32)[inverse].reshape(labels.shape)
        return found


def link_objects(planes: Iterable[Labels], along: Along = "t") -> Links:
    """Links the objects of consecutive planes.

    Args:
        planes: Label images `(height, width)`, in order; two are held in memory at a time.
        along: "z" for planes of a volume, whose objects overlap; "t" for frames of a film, in which
            objects move and divide.

    Returns:
        The tracks, numbered from 1 by first plane and then by row and column; `relabel` of the
        result gives the label images with these numbers.

    Raises:
        ValueError: If `along` is unknown, or the planes differ in size.
    """
    if along not in get_args(Along):
        raise ValueError(f"along must be one of {', '.join(get_args(Along))}. Received: {along}")
    linker = _Linker(along)
    for index, labels in enumerate(planes):
        linker.add(_Plane.of(index, labels))
    return linker.links()


@dataclass
class _Linker:
    """State of a linking: the last two planes, and the tracks so far."""

    along: Along
    planes: list[_Plane] = field(default_factory=list)
    numbers: list[dict[int, int]] = field(default_factory=list)
    tracks: dict[int, Track] = field(default_factory=dict)

    def add(self, plane: _Plane) -> None:
        """Links the objects of the next plane."""
        track_of: dict[int, int] = {}
        free = np.ones(len(plane.numbers), bool)
        for earlier in reversed(self.planes):
            taken = self._linked(earlier, plane, track_of, free)
            free[taken] = False
        if self.along == "t" and self.planes:
            free[self._divided(self.planes[-1], plane, track_of, free)] = False
        for position in np.nonzero(free)[0].tolist():
            track_of[position] = self._start(plane.index)
        self.numbers.append({int(plane.numbers[at]): number for at, number in track_of.items()})
        self.planes = [*self.planes[-1:], plane]

    def _start(self, index: int, parent: int = 0) -> int:
        number = len(self.tracks) + 1
        self.tracks[number] = Track(number, index, index, parent)
        return number

    def _linked(
        self, earlier: _Plane, plane: _Plane, track_of: dict[int, int], free: NDArray[np.bool_]
    ) -> list[int]:
        """Links the objects of an earlier plane whose tracks end there; returns those reached."""
        open_tracks = self._open(earlier)
        gap = plane.index - earlier.index - 1
        taken = []
        for start, end in _assign(_candidates(earlier, plane, self.along, gap), open_tracks, free):
            number = open_tracks[start]
            self.tracks[number] = replace(self.tracks[number], end=plane.index)
            track_of[end] = number
            taken.append(end)
        return taken

    def _open(self, plane: _Plane) -> dict[int, int]:
        """Returns the objects of a plane in which a track ends so far, and the track."""
        numbers = self.numbers[plane.index]
        tracks = {at: numbers[number] for at, number in enumerate(plane.numbers.tolist())}
        parents = {track.parent for track in self.tracks.values()}
        return {
            at: track
            for at, track in tracks.items()
            if self.tracks[track].end == plane.index and track not in parents
        }

    def _divided(
        self, earlier: _Plane, plane: _Plane, track_of: dict[int, int], free: NDArray[np.bool_]
    ) -> list[int]:
        """Finds objects that are the second daughters of objects of the last plane."""
        mothers = {
            track: at
            for at, number in enumerate(earlier.numbers.tolist())
            if (track := self.numbers[earlier.index][number])
        }
        pairs: list[tuple[float, int, int]] = []
        others = np.nonzero(free)[0].tolist()
        tree = KDTree(plane.centers[others].reshape(-1, 2))
        for first, track in track_of.items():
            if track in mothers:
                mother = mothers[track]
                reach = _APART * earlier.widths[mother]
                for near in tree.query_ball_point(plane.centers[first], reach):
                    cost = _division_cost(earlier, mother, plane, (first, others[near]))
                    if cost < 1:
                        pairs.append((cost, first, others[near]))
        taken: set[int] = set()
        for _, first, second in sorted(pairs):
            if first in taken or second in taken:
                continue
            taken |= {first, second}
            parent = track_of[first]
            self.tracks[parent] = replace(self.tracks[parent], end=earlier.index)
            for daughter in (first, second):
                track_of[daughter] = self._start(plane.index, parent)
        return [at for at in taken if free[at]]

    def links(self) -> Links:
        return Links(tuple(self.numbers), tuple(self.tracks.values()))


def _runs(indices: list[int]) -> list[list[int]]:
    """Splits ascending numbers where one is left out."""
    ends = [0, *(np.nonzero(np.diff(indices) > 1)[0] + 1).tolist(), len(indices)]
    return [indices[start:stop] for start, stop in itertools.pairwise(ends)]


def _candidates(
    earlier: _Plane, plane: _Plane, along: Along, gap: int
) -> Iterator[tuple[int, int, float]]:
    """Yields pairs of objects that may be the same, and the cost of their link, below 1."""
    common = _common_pixels(earlier, plane)
    pairs = set(common)
    if along == "t" and len(earlier.numbers) and len(plane.numbers):
        reach = _REACH * earlier.widths
        near = KDTree(plane.centers).query_ball_point(earlier.centers, reach)
        pairs |= {(start, end) for start, ends in enumerate(near) for end in ends}
    for start, end in pairs:
        areas = earlier.areas[start], plane.areas[end]
        overlap = common.get((start, end), 0) / min(areas)
        apart = float(np.linalg.norm(earlier.centers[start] - plane.centers[end]))
        distance = apart / (_REACH * max(earlier.widths[start], plane.widths[end]))
        place = 1 - overlap if along == "z" else (1 - overlap) * (1 + distance) / 2
        size = abs(math.log(areas[0] / areas[1])) / math.log(_LARGEST_RATIO)
        cost = (1 - _SIZE_SHARE) * place + _SIZE_SHARE * size + gap * _GAP_COST
        is_near = overlap >= _LEAST_OVERLAP if along == "z" else distance < 1
        if is_near and cost < 1:
            yield start, end, cost


def _common_pixels(earlier: _Plane, plane: _Plane) -> dict[tuple[int, int], int]:
    """Returns the number of common pixels of each pair of objects that has some."""
    if earlier.labels.shape != plane.labels.shape:
        raise ValueError(
            "planes must have one shape. Received "
            f"{earlier.labels.shape} and {plane.labels.shape} in planes {earlier.index} and "
            f"{plane.index}; link images of one size"
        )
    both = (earlier.labels > 0) & (plane.labels > 0)
    starts, ends = earlier.labels[both] - 1, plane.labels[both] - 1
    pairs, counts = np.unique(np.stack([starts, ends]), axis=1, return_counts=True)
    return dict(zip(map(tuple, pairs.T.tolist()), counts.tolist(), strict=True))


def _assign(
    candidates: Iterator[tuple[int, int, float]],
    starts: dict[int, int],
    free: NDArray[np.bool_],
) -> list[tuple[int, int]]:
    """Chooses the links of the lowest sum of costs, where no link costs 1."""
    allowed = [item for item in candidates if item[0] in starts and free[item[1]]]
    rows = {start: at for at, start in enumerate(sorted({start for start, _, _ in allowed}))}
    columns = {end: at for at, end in enumerate(sorted({end for _, end, _ in allowed}))}
    costs = np.ones((len(rows), len(columns)))
    for start, end, cost in allowed:
        costs[rows[start], columns[end]] = cost
    first, second = list(rows), list(columns)
    return [
        (first[row], second[column])
        for row, column in zip(*linear_sum_assignment(costs), strict=True)
        if costs[row, column] < 1
    ]


def _division_cost(
    earlier: _Plane, mother: int, plane: _Plane, daughters: tuple[int, int]
) -> float:
    """Returns the cost of a division; 1 or more if it is none."""
    areas, centers = plane.areas[list(daughters)], plane.centers[list(daughters)]
    middle = np.average(centers, axis=0, weights=areas)
    distance = float(np.linalg.norm(middle - earlier.centers[mother])) / earlier.widths[mother]
    is_division = (
        areas.max() <= _LARGEST_DAUGHTER * earlier.areas[mother]
        and areas.min() >= _LEAST_DAUGHTER * areas.max()
    )
    return distance / _MIDDLE if is_division else 1.0
