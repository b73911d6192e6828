"""Which channels and planes of an image with more than two axes are read: those of a colour picture, or a refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stages.slide.facts import SlideError

EXPORT_CHANNELS = "fluorescence cannot be read as colours; export the channels to be shown as one RGB picture"

_RGB = ("red", "green", "blue")
_TINTS = {0xFF0000: "red", 0x00FF00: "green", 0x0000FF: "blue"}
_GREYS = range(0, 0x1000000, 0x010101)
_NAMES = {**{colour: colour for colour in _RGB}, **{colour[0]: colour for colour in _RGB}}
_NO_NAME = re.compile(r"(channel|ch|c)?[ _:#-]*\d*([ _:-]\d+)*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of an image.

    Attributes:
        name: as a person would call it; empty where it has only a number.
        colour: "red", "green" or "blue" where its name says so, or, having none, its colour; else None.
        plain: whether nothing is said of it, so that it may be any.
        tint: 0xRRGGBB that it is shown in; None where nobody says, and of shades of grey, which say nothing.
    """

    name: str
    colour: str | None
    plain: bool
    tint: int | None = None

    def in_words(self, number: int) -> str:
        """Its name, else what it is shown in, else its number."""
        return self.name or (f"number {number}" if self.tint is None else f"#{self.tint:06x}")


def describe_channel(name: str, tint: int | None, *, light: bool = False) -> Channel:
    """A channel as metadata describe it.

    Args:
        name: as it is written; one that is only a number says nothing.
        tint: 0xRRGGBB that it is shown in, or None.
        light: whether something is said of its light, as a fluorophore or a wavelength: then its tint is no colour.
    """
    name = name.strip()
    if _NO_NAME.fullmatch(name):
        name = ""
    if tint in _GREYS:
        tint = None
    colour = _NAMES.get(name.casefold()) if name else None if light or tint is None else _TINTS.get(tint)
    return Channel(name, colour, plain=not name and not light and tint is None, tint=tint)


def choose_channels(
    count: int, channels: Sequence[Channel], warnings: list[str], *, unnamed: bool = True
) -> tuple[int, ...]:
    """Which channels are read: the only one, or red, green and blue in this order.

    Args:
        count: how many there are.
        channels: what is said of them; where it is of another number, nothing is.
        warnings: where what was chosen is added.
        unnamed: whether three of which nothing is said are red, green and blue.

    Raises:
        SlideError: they are not those of a colour picture.
    """
    if count == 1:
        return (0,)
    known = channels if len(channels) == count else (Channel("", None, plain=True),) * count
    colours = [channel.colour for channel in known]
    if all(colours.count(colour) == 1 for colour in _RGB):
        if count > 3:
            warnings.append(f"of its {count} channels red, green and blue are read")
        return tuple(colours.index(colour) for colour in _RGB)
    if count == 3 and unnamed and all(channel.plain for channel in known):
        return (0, 1, 2)
    names = ", ".join(channel.in_words(i) for i, channel in enumerate(known[:12], 1))
    raise SlideError(
        f"it has {count} channels ({names}{', ...' if count > 12 else ''}) that are not red, green and blue: "
        + EXPORT_CHANNELS
    )


def choose_place(axis: str, size: int, warnings: list[str]) -> int | None:
    """Where along an axis the picture that is read lies: "z" in the middle, "t" at the beginning; None of other axes.

    Args:
        axis: its name, lower case.
        size: how many places it has.
        warnings: where what was chosen is added.
    """
    if size == 1:
        return 0
    if axis == "z":
        warnings.append(f"of its {size} focal planes the middle one, number {size // 2 + 1}, is read")
        return size // 2
    if axis == "t":
        warnings.append(f"of its {size} points in time the first is read")
        return 0
    return None
