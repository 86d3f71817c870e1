"""Scores of tracks: DET and TRA of the Cell Tracking Challenge.

Both compare acyclic oriented graphs, whose vertices are objects in frames and whose edges are links
(Matula et al. 2015, PLoS ONE 10:e0144959): 1 minus the cost of the operations that turn the result
into the reference, divided by that of building the reference from nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from keras_unet.metrics.objects import LabelImage, Overlaps

_SPLIT, _MISSING, _FALSE = 5.0, 10.0, 1.0  # costs of vertices
_EDGE_DELETED, _EDGE_ADDED, _EDGE_CHANGED = 1.0, 1.5, 1.0

Vertex = tuple[int, int]
"""Frame and label of an object."""


@dataclass(frozen=True, order=True)
class Track:
    """An object through the frames of a film, or the planes of a volume.

    Attributes:
        number: Its label in every frame.
        begin: First frame, from 0.
        end: Last frame.
        parent: Label of the object that divided into this one and others; 0 for none.
    """

    number: int
    begin: int
    end: int
    parent: int = 0


@dataclass(frozen=True)
class TrackingErrors:
    """Operations that turn the result into the reference, and size of the reference.

    Attributes:
        splits: Splits of an object that covers several of the reference.
        missing: Objects to add.
        false: Objects to delete.
        edges_deleted: Links to delete, between objects that are found.
        edges_added: Links to add.
        edges_changed: Links that are those of a division in one of the two alone.
        vertices: Objects of the reference, in all frames.
        edges: Links of the reference.
    """

    splits: int
    missing: int
    false: int
    edges_deleted: int
    edges_added: int
    edges_changed: int
    vertices: int
    edges: int

    @property
    def det(self) -> float:
        """DET, the detection accuracy; NaN without reference objects."""
        return _accuracy(self._vertex_cost, _MISSING * self.vertices)

    @property
    def tra(self) -> float:
        """TRA, the tracking accuracy; NaN without reference objects."""
        cost = (
            self._vertex_cost
            + _EDGE_DELETED * self.edges_deleted
            + _EDGE_ADDED * self.edges_added
            + _EDGE_CHANGED * self.edges_changed
        )
        return _accuracy(cost, _MISSING * self.vertices + _EDGE_ADDED * self.edges)

    @property
    def _vertex_cost(self) -> float:
        return _SPLIT * self.splits + _MISSING * self.missing + _FALSE * self.false


def _accuracy(cost: float, cost_from_nothing: float) -> float:
    if not cost_from_nothing:
        return float("nan")
    return 1 - min(cost, cost_from_nothing) / cost_from_nothing


def tracking_errors(
    references: Iterable[LabelImage],
    results: Iterable[LabelImage],
    reference_tracks: Sequence[Track],
    result_tracks: Sequence[Track],
) -> TrackingErrors:
    """Compares the tracks of a film with those of a reference.

    An object of the reference is found if an object of the result covers more than half of it.

    Args:
        references: Label image of each frame, `(height, width)`; 0 is background.
        results: Label image of each frame of the result, of the same sizes.
        reference_tracks: Tracks of the reference.
        result_tracks: Tracks of the result.

    Raises:
        ValueError: If the numbers of frames or the sizes differ, or a track has a parent that is
            not in a frame.

    Example:
        >>> frames = [np.array([[1, 0, 2]]), np.array([[1, 0, 2]])]
        >>> tracks = [Track(1, 0, 1), Track(2, 0, 1)]
        >>> swapped = [frames[0], np.array([[2, 0, 1]])]
        >>> errors = tracking_errors(frames, swapped, tracks, tracks)
        >>> errors.det, round(errors.tra, 3), errors.edges_added, errors.edges_deleted
        (1.0, 0.884, 2, 2)
    """
    found: dict[Vertex, Vertex] = {}  # of the reference, to that of the result
    reference, result = _Graph(), _Graph()
    for frame, (truth, labels) in enumerate(zip(references, results, strict=True)):
        overlaps = Overlaps.of(truth, labels)
        numbers = reference.add(frame, truth), result.add(frame, labels)
        covered = 2 * overlaps.common > overlaps.reference_sizes[overlaps.reference]
        pairs = zip(overlaps.reference[covered], overlaps.result[covered], strict=True)
        for first, second in pairs:
            found[frame, int(numbers[0][first])] = frame, int(numbers[1][second])
    covering: dict[Vertex, list[Vertex]] = {}  # of the result, to those of the reference
    for vertex, other in found.items():
        covering.setdefault(other, []).append(vertex)
    unique = {other: covered[0] for other, covered in covering.items() if len(covered) == 1}
    true_edges, edges = reference.edges(reference_tracks), result.edges(result_tracks)
    mapped = {
        (unique[start], unique[end]): is_division
        for (start, end), is_division in edges.items()
        if start in unique and end in unique
    }
    return TrackingErrors(
        splits=len(found) - len(covering),
        missing=len(reference.vertices) - len(found),
        false=len(result.vertices) - len(covering),
        edges_deleted=len(mapped.keys() - true_edges.keys()),
        edges_added=len(true_edges.keys() - mapped.keys()),
        edges_changed=sum(
            true_edges[edge] != is_division
            for edge, is_division in mapped.items()
            if edge in true_edges
        ),
        vertices=len(reference.vertices),
        edges=len(true_edges),
    )


@dataclass
class _Graph:
    """Vertices of a film."""

    vertices: set[Vertex] = field(default_factory=set)

    def add(self, frame: int, labels: LabelImage) -> NDArray[np.integer]:
        """Adds the objects of a frame, and returns their labels in ascending order."""
        numbers = np.unique(labels)
        numbers = numbers[numbers > 0]
        self.vertices.update((frame, number) for number in numbers.tolist())
        return numbers

    def edges(self, tracks: Sequence[Track]) -> dict[tuple[Vertex, Vertex], bool]:
        """Returns the links, and for each whether it is that of a division."""
        edges = {
            ((frame - 1, number), (frame, number)): False
            for frame, number in self.vertices
            if (frame - 1, number) in self.vertices
        }
        ends = {track.number: track.end for track in tracks}
        for track in tracks:
            if track.parent:
                start = ends.get(track.parent, -1), track.parent
                end = track.begin, track.number
                if start not in self.vertices or end not in self.vertices:
                    raise ValueError(
                        f"track {track.number}: expected a label in frame {end[0]}, and its parent "
                        f"{track.parent} in the last frame of its track. Received label images "
                        "without one of them; compare the tracks with their label images"
                    )
                edges[start, end] = True
        return edges
