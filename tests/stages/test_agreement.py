"""Patches of another picture than the thumbnail's are told of, and levels that scanners made in their ways are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from makers import change_bytes, change_tags, empty_tile, page_of, tissue_pixels, write_slide
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stages.agreement import Agreement, missing_tiles
from stages.geometry import Raster
from stages.patches import PatchReader
from stages.pyramid.open import open_pyramid
from stages.slide.render import render_many
from stages.tissue.thumbnail import read_thumbnail

IMAGE = tissue_pixels(1024, 768, margin=0)
Pixels = NDArray[np.uint8]


def warnings_of(path: Path, *, patch_px: int = 64) -> tuple[str, ...]:
    """What is said after all patches of 0.5 µm/px were read."""
    slide = open_pyramid(path)
    agreement = Agreement(read_thumbnail(slide, 8.0))
    cells = Raster(0, 0, patch_px, patch_px, 1024 // patch_px, 768 // patch_px)
    read = agreement.watched(PatchReader(slide, cells, patch_px, 0.5))
    assert agreement.warnings == ()
    read(np.arange(cells.width * cells.height)[::-1]).compute(scheduler="threads")
    return agreement.warnings


def zero_tile(path: Path) -> None:
    page = page_of(path)
    change_bytes(path, page.dataoffsets[5] + 9000, bytes(100_000))


def swap_tiles(path: Path) -> None:
    offsets, counts = (list(getattr(page_of(path), name)) for name in ("dataoffsets", "databytecounts"))
    for values in (offsets, counts):
        values[0], values[6] = values[6], values[0]
    change_tags(path, TileOffsets=offsets, TileByteCounts=counts)


def repeat_tile(path: Path) -> None:
    offsets, counts = (list(getattr(page_of(path), name)) for name in ("dataoffsets", "databytecounts"))
    offsets[0], counts[0] = offsets[6], counts[6]
    change_tags(path, TileOffsets=offsets, TileByteCounts=counts)


@pytest.mark.parametrize(
    ("compression", "harm"),
    [(None, zero_tile), ("jpeg", swap_tiles), ("jpeg2000", swap_tiles), ("jpeg", repeat_tile), ("lzw", repeat_tile)],
)
def test_damage_that_decodes_is_told_of(tmp_path: Path, compression: str | None, harm: Callable[[Path], None]) -> None:
    """With how many patches it touches, and where they begin; nothing is said of the intact slide."""
    path = write_slide(tmp_path / "a.tif", IMAGE, compression=compression)
    assert warnings_of(path) == ()
    harm(path)
    (warning,) = warnings_of(path)
    assert (
        " of 192 patches that were read do not show what the thumbnail shows there, or are noise, the first at ("
        in warning
    )
    assert warning.endswith("or copy it again")


def test_noise_about_the_right_mean_is_told_of(tmp_path: Path) -> None:
    """As damage makes of JPEG 2000, whose coarse wavelets it may leave as they are."""
    slide = open_pyramid(write_slide(tmp_path / "a.tif", IMAGE))
    agreement = Agreement(read_thumbnail(slide, 8.0))
    places = [Raster(64.0 * i, 64.0, 1, 1, 64, 64) for i in range(16)]
    patches = list(render_many(slide, places))
    for patch, place in zip(patches, places, strict=True):
        agreement.add(patch, place)
    assert agreement.warnings == ()
    signs = np.random.default_rng(0).choice([-1, 1], (64, 64, 1))
    agreement.add((patches[3] // 2 + 64 + 50 * signs).astype(np.uint8), places[3])
    (warning,) = agreement.warnings
    assert warning.startswith("1 of 16 patches that were read do not show what the thumbnail shows there, or are noise")


def test_damage_of_a_part_of_a_patch_is_told_of(tmp_path: Path) -> None:
    """Small in the mean of the patch, and far beyond what any other is off."""
    slide = open_pyramid(write_slide(tmp_path / "a.tif", IMAGE, compression="lzw"))
    agreement = Agreement(read_thumbnail(slide, 8.0))
    for number in range(24):
        raster = Raster(128 * (number % 8), 128 * (number // 8), 1, 1, 128, 128)
        (patch,) = render_many(slide, [raster])
        if number == 13:
            patch[:32, :32] = 255 - patch[:32, :32]
        agreement.add(patch, raster)
    (warning,) = agreement.warnings
    assert warning.startswith("1 of 24 patches")


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "zstd"])
def test_a_thumbnail_that_lacks_tiles_is_told_of(tmp_path: Path, compression: str) -> None:
    """But not where what lacks is the glass: scanners store no tiles of that, and level 0 has next to nothing there."""
    image = tissue_pixels(1024, 1024, margin=0)
    image[:520] = 255
    path = write_slide(tmp_path / "a.tif", image, compression=compression, levels=2)
    slide = open_pyramid(path)
    assert missing_tiles(slide, read_thumbnail(slide, 8.0)) == ()
    empty_tile(path, 1, 0)
    slide = open_pyramid(path)
    assert missing_tiles(slide, read_thumbnail(slide, 8.0)) == ()
    empty_tile(path, 1, 3)
    slide = open_pyramid(path)
    (warning,) = missing_tiles(slide, read_thumbnail(slide, 8.0))
    assert warning.startswith("1 of 4 tiles of level 1 are blank where level 0 is not, and so is the thumbnail: ")


def averaged(factor: int) -> Pixels:
    return np.asarray(Image.fromarray(IMAGE).resize((1024 // factor, 768 // factor), Image.Resampling.BOX))


LEVELS: dict[str, Callable[[int], Pixels]] = {
    "means": averaged,
    "every k-th pixel": lambda k: IMAGE[::k, ::k],
    "sharpened": lambda k: np.asarray(Image.fromarray(averaged(k)).filter(ImageFilter.UnsharpMask(2, 150, 0))),
    "blurred": lambda k: np.asarray(Image.fromarray(averaged(k)).filter(ImageFilter.GaussianBlur(1))),
    "brighter": lambda k: np.clip(averaged(k) * 1.08, 0, 255).astype(np.uint8),
    "averaged in linear light": lambda k: (
        255 * ((IMAGE / 255.0) ** 2.2).reshape(768 // k, k, 1024 // k, k, 3).mean((1, 3)) ** (1 / 2.2)
    ).astype(np.uint8),
}
"""How scanners and converters make a coarser level."""


@pytest.mark.parametrize("way", LEVELS)
def test_levels_made_in_other_ways_agree(tmp_path: Path, way: str) -> None:
    """Compressed hard besides."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for factor in (1, 4):
            tiff.write(
                np.ascontiguousarray(IMAGE if factor == 1 else LEVELS[way](factor)),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                metadata=None,
                compressionargs={"level": 30},
                subfiletype=int(factor > 1),
                resolution=(20000 / factor, 20000 / factor),
                resolutionunit="CENTIMETER",
            )
    assert len(open_pyramid(path).facts.levels) == 2
    for patch_px in (32, 64, 128):
        assert warnings_of(path, patch_px=patch_px) == ()
