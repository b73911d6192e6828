"""Which pages of a TIFF's picture are the plane that is read: its axes in words, and channels that are colours."""

from __future__ import annotations

import math
from typing import Any

from stages.slide.facts import SlideError
from stages.slide.ome import Channel, OmeImage
from stages.slide.samples import EXPORT_CHANNELS

_RGB = ("red", "green", "blue")


def choose_pages(chosen: Any, ome: OmeImage | None, warnings: list[str]) -> list[int]:
    """Which of a level's pages are the plane that is read: one page, or those of red, green and blue."""
    axes = [(axis, int(size)) for axis, size in zip(chosen.axes, chosen.shape, strict=True) if axis not in "YXS"]
    if math.prod(size for _, size in axes) != len(chosen.pages):
        raise SlideError("its planes are not stored as pages of their own: save it as OME-TIFF")
    steps, places = 1, {}
    for axis, size in reversed(axes):  # the last axis runs fastest
        places[axis] = (steps, size)
        steps *= size
    start = 0
    for axis, (step, size) in places.items():
        if size == 1 or axis == "C":
            continue
        if axis == "Z":
            warnings.append(f"of its {size} focal planes the middle one, number {size // 2 + 1}, is read")
            start += size // 2 * step
        elif axis == "T":
            warnings.append(f"of its {size} points in time the first is read")
        elif size == 3 and "S" not in chosen.axes and len(places) == 1:
            warnings.append("its three grey pages of one size are read as red, green and blue")
            return [0, 1, 2]
        else:
            raise SlideError(
                f"it holds {size} pictures of one size and does not say what they are (channels, focal planes, "
                "sections): save the one to be read as a file of its own, or name the axes in OME-XML"
            )
    step, size = places.get("C", (0, 1))
    return [start + step * channel for channel in _channels(chosen, ome, size, warnings)]


def _channels(chosen: Any, ome: OmeImage | None, count: int, warnings: list[str]) -> tuple[int, ...]:
    """Which channels are read: the only one, or red, green and blue in this order."""
    if count == 1:
        return (0,)
    channels = ome.channels if ome and len(ome.channels) == count else (Channel("", None, plain=True),) * count
    colours = [channel.colour for channel in channels]
    if "S" not in chosen.axes and all(colours.count(colour) == 1 for colour in _RGB):
        if count > 3:
            warnings.append(f"of its {count} channels red, green and blue are read")
        return tuple(colours.index(colour) for colour in _RGB)
    if "S" not in chosen.axes and count == 3 and chosen.dtype == "uint8" and all(c.plain for c in channels):
        warnings.append("its three channels without names are read as red, green and blue")
        return (0, 1, 2)
    names = ", ".join(channel.name or f"number {i + 1}" for i, channel in enumerate(channels[:12]))
    raise SlideError(
        f"it has {count} channels ({names}{', ...' if count > 12 else ''}) that are not red, green and blue: "
        + EXPORT_CHANNELS
    )
