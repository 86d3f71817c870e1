"""Selection of channels by number, from 0, or by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted
from keras_unet.data.calibration import Spacing

Channels = Sequence[int | str]
"""Numbers of channels, from 0, or names as in the files, in the order of the network's input."""


@dataclass(frozen=True)
class Selection:
    """Channels to read of every image.

    Attributes:
        channels: Numbers or names.
        is_recorded: Whether they are those that a model was trained on, so that an image that does
            not name them and has as many channels is read as it is.
    """

    channels: tuple[int | str, ...]
    is_recorded: bool = False

    @classmethod
    def of(cls, channels: Channels | None, *, is_recorded: bool = False) -> Self | None:
        """Checks a selection.

        Args:
            channels: Numbers or names; None for all channels.
            is_recorded: See the attribute.

        Raises:
            ValueError: If it is empty, a number is negative, or one is selected twice.
        """
        if channels is None:
            return None
        selected = tuple(channels)
        is_valid = not isinstance(channels, str) and all(map(_is_channel, selected))
        if not is_valid or not selected or len(set(selected)) < len(selected):
            raise ValueError(
                "channels must be different numbers of at least 0, or names. Received: "
                f"channels={channels!r}"
            )
        return cls(selected, is_recorded)

    def indices(self, names: Sequence[str], count: int, path: Path) -> tuple[int, ...] | None:
        """Returns the indices of the channels in an image; None for all as they are.

        Args:
            names: Names of the channels of the image; others than `count` names are ignored.
            count: Number of channels of the image.
            path: Path of the image, for messages.

        Raises:
            ValueError: If a channel is not in the image, or its name or number is ambiguous.
        """
        known = tuple(names) if len(names) == count else ()
        if self.is_recorded and count == len(self.channels) and not self._names_are_in(known):
            return None
        found = tuple(_index(channel, known, count, path) for channel in self.channels)
        if len(set(found)) < len(found):
            raise ValueError(
                f"{path}: expected different channels. Received {_listed(self.channels)}, which "
                f"are the same; its channels are {_described(known, count)}"
            )
        return found

    def _names_are_in(self, names: Sequence[str]) -> bool:
        chosen = [channel for channel in self.channels if isinstance(channel, str)]
        return bool(chosen) and all(len(_named(name, names)) == 1 for name in chosen)


def select(
    selection: Selection | None, pixels: NDArray[Any], spacing: Spacing, path: Path
) -> tuple[NDArray[Any], Spacing]:
    """Selects channels of an image.

    Args:
        selection: The channels; None for all.
        pixels: Array `(..., channels)`.
        spacing: Its calibration, with the names of the channels.
        path: Path of the image, for messages.

    Returns:
        The array `(..., channels selected)`, and the calibration with their names.

    Raises:
        ValueError: See `Selection.indices`.
    """
    indices = selection and selection.indices(spacing.channels, pixels.shape[-1], path)
    if not indices:
        return pixels, spacing
    return np.take(pixels, indices, axis=-1), with_channels(spacing, indices)


def with_channels(spacing: Spacing, indices: Sequence[int]) -> Spacing:
    """Returns a calibration with the names of selected channels alone, if it has names."""
    names = spacing.channels
    return replace(spacing, channels=tuple(names[i] for i in indices)) if names else spacing


def differing_names(images: Iterable[tuple[Path, Sequence[str]]]) -> tuple[str, ...]:
    """Returns a note if channels at the same place have different names in different images.

    Args:
        images: Path of each image, and the names of its channels.

    Example:
        >>> differing_names([(Path("a.tif"), ["DAPI"]), (Path("b.tif"), ["GFP"])])
        ('channels differ in their names: DAPI in a.tif; GFP in b.tif. Choose ... by --channels',)
        >>> differing_names([(Path("a.tif"), ["DAPI"]), (Path("b.tif"), [])])
        ()
    """
    files: dict[tuple[str, ...], str] = {}
    for path, names in images:
        if names:
            files.setdefault(tuple(names), path.name)
    if len(files) < 2:
        return ()
    named = "; ".join(f"{', '.join(names)} in {file}" for names, file in files.items())
    return (f"channels differ in their names: {named}. Choose them by name, by --channels",)


def _is_channel(channel: object) -> bool:
    if isinstance(channel, str):
        return bool(channel.strip())
    return isinstance(channel, int) and not isinstance(channel, bool) and channel >= 0


def _index(channel: int | str, names: Sequence[str], count: int, path: Path) -> int:
    if isinstance(channel, int) and channel < count:
        _refuse_ambiguous(channel, names, path)
        return channel
    found = _named(str(channel), names)
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{path}: expected one channel of the name {channel}. Received several; choose by "
            f"number: {_described(names, count)}"
        )
    raise ValueError(
        f"{path}: expected a channel {channel}. Received {counted(count, 'channel')}: "
        f"{_described(names, count)}; choose among them by --channels (channels=), such as 0"
    )


def _refuse_ambiguous(number: int, names: Sequence[str], path: Path) -> None:
    """Refuses the number of a channel that is the name of another one."""
    if str(number) in names and names[number] != str(number):
        raise ValueError(
            f"{path}: expected a number or a name. Received {number}, which is the number of the "
            f"channel {names[number]} and the name of channel {names.index(str(number))}; choose "
            "by other numbers or names, or rename the channels"
        )


def _named(name: str, names: Sequence[str]) -> list[int]:
    """Returns the indices of channels of a name; if there is none, ignoring case."""
    exact = [index for index, other in enumerate(names) if other == name]
    folded = [index for index, other in enumerate(names) if other.casefold() == name.casefold()]
    return exact or folded


def _described(names: Sequence[str], count: int) -> str:
    if not names:
        return f"0 to {count - 1}, without names"
    return ", ".join(f"{index} {name}" for index, name in enumerate(names))


def _listed(channels: Channels) -> str:
    return ", ".join(map(str, channels))
