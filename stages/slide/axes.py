"""Which pages of a TIFF's picture are the plane that is read: its axes in words, and channels that are colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stages.slide.channels import Channel, choose_channels, choose_place
from stages.slide.facts import SlideError
from stages.slide.ome import OmeImage

_THREE = "its three grey pages of one size, of which it says nothing, are read as red, green and blue"
"""A TIFF has a better way to store colours, so such pages may be anything."""


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
        if axis == "C":
            continue
        place = choose_place(axis.lower(), size, warnings)
        if place is not None:
            start += place * step
        elif size == 3 and "S" not in chosen.axes and len(places) == 1:
            warnings.append(_THREE)
            return [0, 1, 2]
        else:
            raise SlideError(
                f"it holds {size} pictures of one size and does not say what they are (channels, focal planes, "
                "sections): save the one to be read as a file of its own, or name the axes in OME-XML"
            )
    step, size = places.get("C", (0, 1))
    return [start + step * channel for channel in _channels(chosen, ome, size, warnings)]


def _channels(chosen: Any, ome: OmeImage | None, count: int, warnings: list[str]) -> tuple[int, ...]:
    channels: Sequence[Channel] = ome.channels if ome else ()
    apart = "S" not in chosen.axes
    if not apart:  # each is a picture with colours of its own
        channels = [replace(channel, colour=None) for channel in channels]
    found = choose_channels(count, channels, warnings, unnamed=apart and chosen.dtype == "uint8")
    if len(found) == 3 and (len(channels) != count or all(channel.plain for channel in channels)):
        warnings.append(_THREE)
    return found
