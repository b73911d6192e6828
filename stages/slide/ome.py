"""What an OME-TIFF's description says of its images: their size in micrometres, channels and significant bits.

Format: OME schema 2016-06 and the older ones, whose elements are the same but for the name space.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from stages.geometry import Mpp

_MICROMETRES = {
    **dict.fromkeys(("", "µm", "μm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    "pm": 1e-6,
    "å": 1e-4,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
    "li": 25400.0 / 12,
    "ft": 304800.0,
    "thou": 25.4,
    "mil": 25.4,
    "pt": 25400 / 72,
}
"""Of the units of length; whoever names none means micrometres. The two mu look alike and are different letters."""

_COLOURS = {0xFF0000: "red", 0x00FF00: "green", 0x0000FF: "blue"}
_NAMES = {"r": "red", "red": "red", "g": "green", "green": "green", "b": "blue", "blue": "blue"}
_NO_NAME = re.compile(r"(channel|ch|c)?[ _:#-]*\d*([ _:-]\d+)*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of an image.

    Attributes:
        name: as a person would call it; empty where it has only a number.
        colour: "red", "green" or "blue" where its name says so, or, having none, its colour; else None.
        plain: whether nothing is said of it, so that it may be any.
    """

    name: str
    colour: str | None
    plain: bool


@dataclass(frozen=True, slots=True)
class OmeImage:
    """What is said of one image.

    Attributes:
        name: its own.
        mpp: µm per pixel; None where nobody says.
        channels: in their order.
        bits: that hold the samples' values; None where nobody says.
        objective_power: of the objective that it was made with.
    """

    name: str
    mpp: Mpp | None
    channels: tuple[Channel, ...]
    bits: int | None
    objective_power: str | None


def micrometres(unit: str) -> float | None:
    """How long a unit is, in µm; None for those that are no lengths, as "pixel"."""
    return _MICROMETRES.get(unit.strip().casefold())


def read_ome(description: str) -> list[OmeImage]:
    """Every image that a description speaks of, in its order; none where it is no valid XML."""
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError:
        return []
    powers = {
        objective.get("ID"): objective.get("NominalMagnification")
        for instrument in _all(root, "Instrument")
        for objective in _all(instrument, "Objective")
    }
    images = []
    for image in _all(root, "Image"):
        pixels = next(_all(image, "Pixels"), None)
        if pixels is None:
            continue
        settings = next(_all(image, "ObjectiveSettings"), None)
        images.append(
            OmeImage(
                name=(image.get("Name") or "").strip(),
                mpp=_mpp(pixels),
                channels=tuple(map(_channel, _all(pixels, "Channel"))),
                bits=_whole(pixels.get("SignificantBits")),
                objective_power=None if settings is None else powers.get(settings.get("ID")),
            )
        )
    return images


def _all(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _mpp(pixels: ElementTree.Element) -> Mpp | None:
    sides = []
    for axis in "XY":
        scale = micrometres(pixels.get(f"PhysicalSize{axis}Unit", ""))
        try:
            side = float(pixels.get(f"PhysicalSize{axis}", "nan")) * (math.nan if scale is None else scale)
        except ValueError:
            return None
        if not (math.isfinite(side) and side > 0):
            return None
        sides.append(side)
    return Mpp(*sides)


def _channel(channel: ElementTree.Element) -> Channel:
    name = (channel.get("Name") or "").strip()
    if _NO_NAME.fullmatch(name):
        name = ""
    tint = _whole(channel.get("Color"))  # RGBA in 32 bits, signed; white, or none, says nothing
    shown = None if tint is None else (tint & 0xFFFFFFFF) >> 8
    keys = ("Fluor", "EmissionWavelength", "ExcitationWavelength")
    told = any(channel.get(key) for key in keys) or channel.get("IlluminationType") == "Epifluorescence"
    colour = _NAMES.get(name.casefold()) if name else None if told or shown is None else _COLOURS.get(shown)
    return Channel(name, colour, plain=not (name or told or shown not in (None, 0, 0xFFFFFF)))


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
