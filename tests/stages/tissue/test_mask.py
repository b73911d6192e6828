"""Thumbnails at a physical size, and the tissue on them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from makers import write_slide
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from stages.geometry import Box, Raster
from stages.slide.files import open_slide
from stages.slide.render import render
from stages.tissue.mask import NoTissueError, find_tissue, tissue_mask
from stages.tissue.thumbnail import Thumbnail, read_thumbnail

Image3 = NDArray[np.uint8]
SIDE = 300
PIECE = np.hypot(*(np.mgrid[:SIDE, :SIDE] - 140.0)) < 60
"""Where the pictures below have their round piece of tissue: 960 µm across its radius at 16 µm/px."""
GLASS = np.array([240.0, 238.0, 243.0])


def glass(noise: float = 2.0) -> NDArray[np.float64]:
    return np.clip(GLASS + np.random.default_rng(0).normal(0, noise, (SIDE, SIDE, 3)), 0, 255)


def stain(strength: float = 1.0) -> NDArray[np.float64]:
    """Real stained tissue on noisy glass; ``strength`` scales its optical density."""
    ihc = Image.fromarray(skimage.data.immunohistochemistry()).resize((128, 128), Image.Resampling.BOX)
    picture = glass()
    tissue = GLASS * (np.asarray(ihc) / 255.0) ** strength
    picture[76:204, 76:204] = np.where(PIECE[76:204, 76:204, None], tissue, picture[76:204, 76:204])
    return picture


def pixels(values: NDArray[np.float64]) -> Image3:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def draw(
    picture: NDArray[np.float64], colour: tuple[int, int, int], line: list[tuple[int, int]]
) -> NDArray[np.float64]:
    pen = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(pen).line(line, fill=255, width=8)
    alpha = ndimage.gaussian_filter(np.asarray(pen) / 255.0, 1)[..., None] * 0.95
    return picture * (1 - alpha) + np.array(colour) * alpha


PENS = {
    "blue": ((30, 50, 150), [(40, 20), (250, 25), (280, 60)]),
    "green": ((20, 120, 70), [(30, 40), (35, 250)]),
    "red": ((200, 25, 40), [(60, 230), (220, 260)]),
    "black": ((25, 22, 28), [(250, 100), (260, 280)]),
}


def shade() -> NDArray[np.float64]:
    return np.linspace(0.75, 1, SIDE)[None, :, None] * np.linspace(0.9, 1, SIDE)[:, None, None]


def jpeg(picture: NDArray[np.float64], quality: int) -> Image3:
    file = io.BytesIO()
    Image.fromarray(pixels(picture)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def recall_and_spill(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of the piece that is found, and false pixels off the piece as a share of its size."""
    rim = ndimage.binary_dilation(PIECE, iterations=2)
    return float(mask[PIECE].mean()), float((mask & ~rim).sum() / PIECE.sum())


def test_finds_stained_tissue_and_nothing_else() -> None:
    recall, spill = recall_and_spill(tissue_mask(pixels(stain()), 16))
    assert recall > 0.97
    assert spill == 0


@pytest.mark.parametrize("picture", [pixels(stain(0.2)), pixels(stain(0.2) * shade()), jpeg(stain(0.2), 50)])
def test_finds_stain_at_a_fifth_of_its_strength(picture: Image3) -> None:
    """The pale stroma of this piece then differs from the glass by less than its noise; the glands are found."""
    recall, spill = recall_and_spill(tissue_mask(picture, 16))
    assert recall > 0.65
    assert spill < 0.01


def test_uneven_illumination_is_not_tissue() -> None:
    recall, spill = recall_and_spill(tissue_mask(pixels(stain() * shade()), 16))
    assert recall > 0.97
    assert spill == 0
    assert not tissue_mask(pixels(glass() * shade()), 16).any()


@pytest.mark.parametrize("pen", PENS)
def test_pen_marks_are_left_out(pen: str) -> None:
    recall, spill = recall_and_spill(tissue_mask(pixels(draw(stain(), *PENS[pen])), 16))
    assert recall > 0.97
    assert spill == 0
    assert not tissue_mask(pixels(draw(glass(), *PENS[pen])), 16).any()


def test_pen_across_tissue_costs_only_what_it_covers() -> None:
    mask = tissue_mask(pixels(draw(stain(), (30, 50, 150), [(60, 20), (140, 140), (280, 60)])), 16)
    recall, spill = recall_and_spill(mask)
    assert recall > 0.8
    assert spill == 0


def test_dust_and_shadows_are_left_out() -> None:
    picture, rng = stain(), np.random.default_rng(1)
    for x, y in rng.integers(2, 60, (40, 2)):
        picture[y : y + 2, x : x + 2] = rng.integers(60, 190)
    picture[220:240, 20:60] *= 0.7  # 0.2 mm², too big to pass for a speck
    recall, spill = recall_and_spill(tissue_mask(pixels(picture), 16))
    assert recall > 0.97
    assert spill == 0


def test_padding_around_the_scan_does_not_make_its_glass_tissue() -> None:
    for strength, least in ((1.0, 0.97), (0.2, 0.65)):
        scan = pixels(stain(strength))
        padded = np.full_like(scan, 255)
        padded[30:270, 20:230] = scan[30:270, 20:230]
        recall, spill = recall_and_spill(tissue_mask(padded, 16))
        assert recall > least
        assert spill < 0.01


def test_black_borders_do_not_make_a_brightfield_scan_fluorescent() -> None:
    scan = pixels(stain())
    bordered = np.zeros_like(scan)
    bordered[60:220, 60:220] = scan[60:220, 60:220]
    recall, spill = recall_and_spill(tissue_mask(bordered, 16))
    assert recall > 0.97
    assert spill == 0


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("gradient", [0.0, 30.0])
def test_finds_fluorescence_on_dark(grey: bool, gradient: float) -> None:
    rng = np.random.default_rng(2)
    nuclei = np.zeros((SIDE, SIDE))
    angle, radius = rng.uniform(0, 2 * np.pi, 900), 60 * np.sqrt(rng.uniform(size=900))
    nuclei[(140 + radius * np.sin(angle)).astype(int), (140 + radius * np.cos(angle)).astype(int)] = 1200
    glow = ndimage.gaussian_filter(nuclei, 1)
    colour = np.ones(3) if grey else np.array([0.05, 0.1, 1.0])
    picture = glow[..., None] * colour + rng.normal(8, 2, (SIDE, SIDE, 3)) + np.linspace(0, gradient, SIDE)[:, None]
    recall, spill = recall_and_spill(tissue_mask(pixels(picture), 8))
    assert recall > 0.9
    assert spill < 0.02


@pytest.mark.parametrize(
    "picture",
    [
        np.full((50, 70, 3), 255, np.uint8),
        np.zeros((50, 70, 3), np.uint8),
        np.full((50, 70, 3), (220, 150, 190), np.uint8),
        pixels(glass()),
        jpeg(glass(4), 40),
        pixels(np.abs(np.random.default_rng(3).normal(8, 4, (200, 200, 3)))),
        np.full((1, 1, 3), 90, np.uint8),
    ],
    ids=["white", "black", "pink", "glass", "jpeg", "dark", "one pixel"],
)
def test_blank_pictures_have_no_tissue(picture: Image3) -> None:
    assert not tissue_mask(picture, 16).any()
    thumbnail = Thumbnail(picture, Raster(0, 0, 32, 32, picture.shape[1], picture.shape[0]), 16)
    with pytest.raises(NoTissueError, match="no tissue found"):
        find_tissue(thumbnail)


@pytest.mark.parametrize("side", [512, 128, 32, 16, 3])
def test_a_picture_full_of_tissue_is_tissue(side: int) -> None:
    """512 pixels at 0.5 µm/px show 0.26 mm of tissue from edge to edge, at any reduction."""
    ihc = Image.fromarray(skimage.data.immunohistochemistry()).resize((side, side), Image.Resampling.BOX)
    assert tissue_mask(np.asarray(ihc), 0.5 * 512 / side).mean() > 0.9


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (2, 3)])
def test_narrow_pictures_are_handled(shape: tuple[int, int]) -> None:
    ihc = Image.fromarray(skimage.data.immunohistochemistry()).resize(shape, Image.Resampling.BOX)
    mask = tissue_mask(np.asarray(ihc), 16)
    assert mask.shape == shape[::-1]
    assert mask.mean() > 0.5


def test_sizes_are_physical() -> None:
    """A fragment of 48 µm is debris at any resolution, one of 240 µm is tissue; a hole of 80 µm is filled."""
    for mpp in (4, 8, 16):
        n = 2400 // mpp
        picture = np.tile(GLASS, (n, n, 1)) + np.random.default_rng(4).normal(0, 1, (n, n, 3))

        def box(x: int, y: int, size: int, mpp: int = mpp) -> tuple[slice, slice]:
            return slice(y // mpp, (y + size) // mpp), slice(x // mpp, (x + size) // mpp)

        picture[box(200, 200, 48)] = picture[box(800, 200, 240)] = picture[box(800, 1200, 800)] = (190, 110, 160)
        picture[box(1120, 1520, 80)] = GLASS
        mask = tissue_mask(pixels(picture), mpp)
        assert not mask[box(160, 160, 160)].any()
        assert mask[box(800, 200, 240)].all()
        assert mask[box(1120, 1520, 80)].all()


def test_thumbnail_has_exactly_the_resolution_asked_for(tmp_path: Path) -> None:
    image = np.random.default_rng(5).integers(90, 250, (901, 1203, 3)).astype(np.uint8)
    slide = open_slide(write_slide(tmp_path / "s.tif", image, mpp=0.5, compression="deflate", factor=3, levels=2))
    thumbnail = read_thumbnail(slide, 7.0)
    assert thumbnail.rgb.shape == (65, 86, 3)  # 901 and 1203 over 14
    assert thumbnail.raster.shape == (65, 86)
    assert thumbnail.raster.scale_x == pytest.approx(14)
    assert np.array_equal(thumbnail.rgb[:-1, :-1], render(slide, thumbnail.raster)[:-1, :-1])


def test_background_beyond_a_dark_slide_does_not_glow(tmp_path: Path) -> None:
    dark = np.full((1001, 1001, 3), 6, np.uint8)
    slide = open_slide(write_slide(tmp_path / "s.tif", dark, compression="deflate"))
    thumbnail = read_thumbnail(slide, 16)
    assert render(slide, thumbnail.raster)[:, -1].max() > 100  # what is guarded against
    assert thumbnail.rgb.max() == 6
    assert not tissue_mask(thumbnail.rgb, 16).any()


def test_absurd_thumbnail_is_refused_with_the_remedy(tmp_path: Path) -> None:
    slide = open_slide(write_slide(tmp_path / "s.tif", np.full((512, 512, 3), 240, np.uint8)))
    slide.facts = replace(slide.facts, bounds=Box(0, 0, 2_000_000, 2_000_000))
    with pytest.raises(ValueError, match="raise attention_mpp to 101 µm/px"):
        read_thumbnail(slide, 16)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "mpp", "inside", "outside", "share"),
    [
        # fractions of the picture's (width, height), judged by eye
        ("CMU-1-Small-Region.svs", 16.0, [(0.55, 0.5), (0.5, 0.9)], [(0.15, 0.15), (0.15, 0.8), (0.95, 0.3)], 0.45),
        ("test3-DAPI-2-(387).ndpi", 16.0, [(0.5, 0.8), (0.15, 0.2), (0.7, 0.4)], [(0.02, 0.02)], 0.72),
        (
            "multi_frame_jpeg_camelyon_challenge_image.dcm",
            29.0,
            [(0.15, 0.5), (0.66, 0.5), (0.41, 0.4)],
            [(0.25, 0.95), (0.5, 0.9), (0.02, 0.5)],
            0.30,
        ),
    ],
)
def test_real_slides(
    shared_data: Path,
    name: str,
    mpp: float,
    inside: list[tuple[float, float]],
    outside: list[tuple[float, float]],
    share: float,
) -> None:
    mask = find_tissue(read_thumbnail(open_slide(shared_data / "slides" / name), mpp)).mask
    height, width = mask.shape
    assert all(mask[int(v * height), int(u * width)] for u, v in inside)
    assert not any(mask[int(v * height), int(u * width)] for u, v in outside)
    assert mask.mean() == pytest.approx(share, abs=0.1)


def test_what_is_all_even_ink_or_all_fill_has_no_tissue() -> None:
    """Of either no pixel is left that tells tissue's colour, or glass's."""
    ink = np.full((33, 300, 3), 240) + np.random.default_rng(0).integers(-3, 4, (33, 300, 3))
    ink[11:, 75:150] -= np.array([90, 150, 90])
    blank = np.full((400, 120, 3), 255, np.uint8)
    blank[:, :60] = 0
    for picture in (np.clip(ink, 0, 255).astype(np.uint8), blank):
        assert not tissue_mask(picture, 8).any()
