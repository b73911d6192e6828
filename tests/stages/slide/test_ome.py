"""What OME-XML says of images: units as people write them, objectives, bits, and channels that are colours or not."""

from __future__ import annotations

import pytest

from stages.slide.channels import Channel
from stages.slide.ome import read_ome

PAGE = """<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/{schema}">
<Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="20.0"/></Instrument>
<Image ID="Image:0" Name=" scan "><ObjectiveSettings ID="Objective:0"/><Pixels {pixels}>{channels}</Pixels></Image>
<Image ID="Image:1"/><Image ID="Image:2" Name="label"><Pixels/></Image></OME>"""


def page(pixels: str = "", channels: str = "", schema: str = "2016-06") -> str:
    return PAGE.format(pixels=pixels, channels=channels, schema=schema)


@pytest.mark.parametrize("schema", ["2016-06", "2010-06"])
def test_an_image_is_described_by_its_own(schema: str) -> None:
    """Whatever the schema's year; an image without pixels is none."""
    first, second = read_ome(page('PhysicalSizeX="0.25" PhysicalSizeY=".5" SignificantBits="12"', schema=schema))
    assert first.mpp is not None
    assert (first.name, first.mpp.x, first.mpp.y, first.bits) == ("scan", 0.25, 0.5, 12)
    assert first.objective_power == "20.0"
    assert (second.name, second.mpp, second.bits, second.objective_power) == ("label", None, None, None)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("", 1), ('PhysicalSizeXUnit="nm" PhysicalSizeYUnit="nm"', 1e-3), ('PhysicalSizeXUnit="pixel"', None)],
)
def test_sizes_are_in_micrometres_where_no_unit_is_named(unit: str, expected: float | None) -> None:
    """What is no length says no size."""
    mpp = read_ome(page(f'PhysicalSizeX="2" PhysicalSizeY="2" {unit}'))[0].mpp
    assert (None if mpp is None else mpp.x) == (None if expected is None else pytest.approx(2 * expected))


@pytest.mark.parametrize("sizes", ['PhysicalSizeX="1"', 'PhysicalSizeX="0" PhysicalSizeY="0"', 'PhysicalSizeX="NaN"'])
def test_a_size_that_is_none_is_not_made_up(sizes: str) -> None:
    assert read_ome(page(sizes))[0].mpp is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", Channel("", None, plain=True)),
        ('Name="Channel 2" Color="-1"', Channel("", None, plain=True)),
        ('Color="-16776961"', Channel("", "red", plain=False, tint=0xFF0000)),
        ('Color="65535"', Channel("", "blue", plain=False, tint=0x0000FF)),
        ('EmissionWavelength="461" Color="65535"', Channel("", None, plain=False, tint=0x0000FF)),
        ('IlluminationType="Epifluorescence"', Channel("", None, plain=False)),
    ],
)
def test_a_channel_is_described(attributes: str, expected: Channel) -> None:
    """Its colour is a signed number of 32 bits, opacity last."""
    assert read_ome(page(channels=f"<Channel ID='Channel:0:0' {attributes}/>"))[0].channels == (expected,)


def test_what_is_no_xml_says_nothing() -> None:
    assert read_ome("<OME><Image") == []
