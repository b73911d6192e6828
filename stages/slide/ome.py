"""What OME-XML says of images, in an OME-TIFF or beside an OME-Zarr: size in micrometres, channels, significant bits.

Format: OME schema 2016-06 and the older ones, whose elements are the same but for the name space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from stages.geometry import Mpp
from stages.slide.channels import Channel, describe_channel
from stages.slide.units import micrometres


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
        scale = micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            side = float(pixels.get(f"PhysicalSize{axis}", "nan")) * (math.nan if scale is None else scale)
        except ValueError:
            return None
        if not (math.isfinite(side) and side > 0):
            return None
        sides.append(side)
    return Mpp(*sides)


def _channel(channel: ElementTree.Element) -> Channel:
    rgba = _whole(channel.get("Color"))  # in 32 bits, signed
    keys = ("Fluor", "EmissionWavelength", "ExcitationWavelength")
    light = any(channel.get(key) for key in keys) or channel.get("IlluminationType") == "Epifluorescence"
    return describe_channel(channel.get("Name") or "", None if rgba is None else (rgba & 0xFFFFFFFF) >> 8, light=light)


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
