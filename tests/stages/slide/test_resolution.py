"""What a file says of its resolution is taken, or doubted where the file contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers import APERIO, tissue_pixels, write_slide

from stages.geometry import Mpp
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.resolution import description_in, doubt_mpp, read_mpp

VIPS = (
    '<image><property><name>openslide.objective-power</name><value type="VipsRefString">20</value></property></image>'
)


@pytest.mark.parametrize(
    ("mpp", "properties", "tag", "words"),
    [
        (Mpp(0.25, 0.25), {"openslide.objective-power": "40"}, None, None),
        (Mpp(0.5, 0.5), {"openslide.objective-power": "40"}, None, None),
        (Mpp(0.25, 0.25), {"openslide.objective-power": "20"}, None, None),
        (Mpp(0.25, 0.5), {"openslide.objective-power": "20"}, None, None),
        (Mpp(0.55, 0.55), {"openslide.objective-power": "40"}, None, "an objective of 40x, about 0.25 µm/px"),
        (Mpp(2.5, 2.5), {"openslide.objective-power": "40"}, None, "2.5 µm/px contradicts an objective of 40x"),
        (Mpp(0.025, 0.025), {"openslide.objective-power": "40"}, None, "an objective of 40x"),
        (Mpp(2.5, 2.5), {"openslide.objective-power": "none"}, None, None),
        (Mpp(2.5, 2.5), {"tiff.ImageDescription": "AppMag = 40|MPP = 0,2500"}, None, "0.25 µm/px in its description"),
        (Mpp(2.5, 2.5), {"tiff.ImageDescription": VIPS}, None, "an objective of 20x, about 0.5 µm/px"),
        (Mpp(0.25, 0.25), {}, Mpp(1.0, 1.0), "1 µm/px in its resolution tag"),
        (Mpp(0.25, 0.25), {}, Mpp(352.8, 352.8), None),  # 72 dpi, for print
        (Mpp(0.25, 0.25), {}, Mpp(21.2, 21.2), None),  # 1200 dpi
    ],
)
def test_a_contradiction_beyond_twice_is_doubted(
    mpp: Mpp, properties: dict[str, str], tag: Mpp | None, words: str | None
) -> None:
    """The objective, the description and level 0's own tags speak; a printer's tag does not. The remedy is named."""
    power, description = properties.get("openslide.objective-power"), description_in(properties)
    doubt = doubt_mpp(mpp, power=power, description=description, tag=tag)
    if words is None:
        assert doubt is None
    else:
        assert words in str(doubt)
        assert "--mpp" in str(doubt)


@pytest.mark.parametrize(
    ("properties", "tag", "words"),
    [
        ({}, None, "does not say its resolution: give"),
        ({}, Mpp(0.25, 0.25), "(a TIFF tag has 0.25 µm/px)"),
        ({}, Mpp(352.8, 352.8), "does not say its resolution: give"),
        ({"tiff.ImageDescription": "AppMag = 40|MPP = 0.2500 um"}, None, "(its description has 0.25 µm/px)"),
    ],
)
def test_an_unknown_resolution_comes_with_what_hints_at_it(
    properties: dict[str, str], tag: Mpp | None, words: str
) -> None:
    """Nothing is guessed; who knows it may say so."""
    mpp, source, problem = read_mpp(properties, tag)
    assert (mpp, source) == (None, "none")
    assert words in str(problem)


def test_a_given_resolution_settles_it(tmp_path: Path) -> None:
    """The file says ten times what its objective does; who gives the truth hears no more of it."""
    path = tmp_path / "a.svs"
    write_slide(path, tissue_pixels(600, 600), levels=1, description=APERIO.replace("0.5", "5.0"))
    facts = open_slide(path).facts
    assert "contradicts an objective of 20x" in facts.doubts[0]
    with pytest.raises(SlideError, match=r"5 µm/px contradicts"):
        facts.refuse_doubt()
    given = open_slide(path, mpp=0.5).facts
    given.refuse_doubt()
    assert given.doubts == ()


def test_a_given_resolution_that_makes_oblong_pixels_square_is_said(tmp_path: Path) -> None:
    """One number cannot tell both sides."""
    oblong = {"resolution": (4e4, 2e4), "resolutionunit": "CENTIMETER"}
    path = write_slide(tmp_path / "a.tif", tissue_pixels(600, 600), mpp=None, levels=1, **oblong)
    assert "0.25 x 0.5 µm by the file" in open_slide(path, mpp=0.25).facts.doubts[0]
    assert open_slide(path).facts.doubts == ()
