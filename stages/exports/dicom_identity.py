"""What DICOM results say of themselves: their UIDs, who made them and when, and the codes of what they hold."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

SCHEME = "99SACCADE"
"""Of codes that are ours."""
_PROCESSING = "109102"
"""DICOM's code of equipment that processed: of the library that wrote."""
NO_UNIT = Code("1", "UCUM", "no units")


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes results those of one run on one slide, and who made them.

    Attributes:
        parts: what their UIDs are made of: other parts, other UIDs.
        version: of Saccade.
        made: when the slide was predicted.
    """

    parts: tuple[str, ...]
    version: str
    made: datetime.datetime

    def uid(self, *parts: str) -> str:
        """The UID of a part of the results."""
        return made_uid(*self.parts, self.version, *parts)

    @property
    def equipment(self) -> dict[str, Any]:
        """What every result says of who made it and when, by the names that highdicom's constructors give it."""
        return {
            "manufacturer": "Saccade",
            "manufacturer_model_name": "saccade",
            "software_versions": self.version,
            "device_serial_number": self.version,
            "specific_character_set": "ISO_IR 192",
            "content_date": self.made.date(),
            "content_time": self.made.time().replace(microsecond=0),
        }


def made_uid(*parts: str) -> str:
    """A UID that is the same for the same parts, below pydicom's root."""
    return str(generate_uid(entropy_srcs=["saccade", *parts]))


def stamp(instance: Dataset, identity: Identity) -> None:
    """Have an instance say that it was made when its content was, and by UIDs of ours alone, so that the same results
    are the same bytes."""
    instance.InstanceCreationDate, instance.InstanceCreationTime = instance.ContentDate, instance.ContentTime
    for equipment in instance.get("ContributingEquipmentSequence", ()):
        if equipment.PurposeOfReferenceCodeSequence[0].CodeValue == _PROCESSING:
            equipment.ContributionDateTime = f"{instance.ContentDate}{instance.ContentTime}"
    made = identity.uid("dimensions", str(instance.SOPInstanceUID))
    for name in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in instance.get(name, ()):
            item.DimensionOrganizationUID = made


def our_code(value: str, meaning: str) -> Code:
    """A code of ours."""
    return Code(plain(value)[:16], SCHEME, plain(meaning))


def unit_code(unit: str) -> Code:
    """The code of a unit, as UCUM has those that it has no name for; "" is none."""
    return Code(f"{{{plain(unit)[:14]}}}", "UCUM", plain(unit)) if unit else NO_UNIT


def plain(text: str) -> str:
    """A text as DICOM's long strings hold it: 64 characters, without backslashes and what cannot be printed."""
    return "".join(c if c.isprintable() and c != "\\" else "_" for c in text)[:64].strip() or "_"
