"""Pyramids of the made slides."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers import Cached, tissue_pixels, write_slide

from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import ZarrSlide, open_pyramid
from stages.pyramid.plan import Wish
from stages.slide.files import open_slide
from stages.slide.protocol import Slide


@pytest.fixture(scope="session")
def cached(slides_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Cached:
    """(slide, its whole pyramid) of a made slide by name and profile; each cached once."""
    folder = tmp_path_factory.mktemp("pyramids")

    def pair(name: str, profile: Wish) -> tuple[Slide, ZarrSlide]:
        slide = open_slide(slides_folder / name)
        out = cache_pyramid(slide, folder / f"{name}.{profile}.ome.zarr", profile=profile, everything=True)
        pyramid = open_pyramid(out)
        assert isinstance(pyramid, ZarrSlide)
        return slide, pyramid

    return pair


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    """A small pyramid of a slide beside it, to be spoilt."""
    slide = write_slide(tmp_path / "slide.tif", tissue_pixels(600, 500), levels=2)
    return cache_pyramid(open_slide(slide), tmp_path / "slide.ome.zarr")
