"""Attention and patches land where they belong on the slide: in the picture, and in QuPath's objects."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import tissue_pixels, write_slide
from matplotlib.figure import Figure
from matplotlib.path import Path as Ring
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import color

from stages.geometry import Box, Mpp, Raster, level_raster
from stages.overlay.evidence_picture import AGAINST, FOR, evidence_page
from stages.overlay.figure import overlay_figure
from stages.overlay.geojson import geojson
from stages.overlay.insets import Inset, round_length
from stages.overlay.page import GAP, WARNED, Page, lay, picture_of
from stages.overlay.picture import COLOURS, coloured, draw_overlay, overlay_page
from stages.patches import PatchReader
from stages.slide.facts import SlideFacts
from stages.slide.files import open_slide
from stages.slide.protocol import Slide
from stages.slide.render import render
from stages.slide.tiles import box_arrays
from stages.tissue.mask import find_tissue
from stages.tissue.thumbnail import Thumbnail, read_thumbnail


class ArraySlide(Slide):
    """A slide held in memory, for what no writer can make: bounds away from the corner."""

    def __init__(self, facts: SlideFacts, levels: list[NDArray[np.uint8]]) -> None:
        self.facts = facts
        self.levels = levels

    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        targets = box_arrays(boxes) if out is None else list(out)
        for box, target in zip(boxes, targets, strict=True):
            target[:] = self.levels[level][box.y : box.y + box.height, box.x : box.x + box.width]
        return targets

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        return np.ones((1, 1), np.int64)

    def direct(self, level: int) -> bool:
        return False


def blob_image(width: int, height: int, x: float, y: float, radius: float) -> NDArray[np.uint8]:
    """Tissue that is brown and pale, with one disc of dense hematoxylin."""
    image = tissue_pixels(width, height)
    rows, columns = np.ogrid[:height, :width]
    image[np.hypot(columns + 0.5 - x, rows + 0.5 - y) < radius] = (70, 60, 150)
    return image


def attend(slide: Slide, attention_mpp: float, cell_px: int) -> tuple[Thumbnail, NDArray[np.float64], Raster]:
    import torch

    from stages.attention import HematoxylinAttention, masked_log_softmax, tissue_cells

    thumbnail = read_thumbnail(slide, attention_mpp)
    hematoxylin = HematoxylinAttention(cell_px=cell_px, temperature=0.01)
    rgb = torch.from_numpy(thumbnail.rgb).permute(2, 0, 1) / 255
    cells = tissue_cells(torch.from_numpy(find_tissue(thumbnail).mask), cell_px=cell_px)
    attention = masked_log_softmax(hematoxylin(rgb), cells).exp().double().numpy()
    return thumbnail, attention, hematoxylin.raster(thumbnail.raster)


def picture(figure: Figure) -> NDArray[np.uint8]:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=figure.dpi)
    return np.asarray(Image.open(file).convert("RGB"))


def to_level0(figure: Figure, xy: NDArray[np.float64], height: int) -> NDArray[np.float64]:
    """Page pixels (N, 2) from the top left -> level-0 coordinates (N, 2), by the figure's first axes."""
    return figure.axes[0].transData.inverted().transform(np.stack([xy[:, 0], height - xy[:, 1]], axis=1))


def check_blob(slide: Slide, centre: tuple[float, float], attention_mpp: float, cell_px: int) -> None:
    """The whole chain, to within one cell: the picture's own pixels, the patch outline and the GeoJSON."""
    thumbnail, attention, cells = attend(slide, attention_mpp, cell_px)
    cell = np.array([cells.scale_x, cells.scale_y])
    box = np.array([[centre[0] - 90, centre[1] - 90, 180, 180]])
    mpp = slide.facts.require_mpp()
    without = overlay_figure(thumbnail, attention, cells, box[:0], title="t", mpp_level0=mpp)
    page = picture(without)
    plain = picture(overlay_figure(thumbnail, np.zeros_like(attention), cells, box[:0], title="t", mpp_level0=mpp))
    upper = math.floor(page.shape[0] * (1 - without.axes[0].get_position().y0))  # the legend is below
    coloured = np.argwhere((np.abs(page.astype(int) - plain).sum(axis=2) > 120)[:upper])[:, ::-1] + 0.5
    assert len(coloured) > 50
    found = np.median(to_level0(without, coloured, page.shape[0]), axis=0)
    assert (np.abs(found - centre) <= cell).all(), (found, centre, cell)

    with_patch = overlay_figure(thumbnail, attention, cells, box, title="t", mpp_level0=mpp)
    outline = np.argwhere((np.abs(picture(with_patch).astype(int) - page).sum(axis=2) > 60)[:upper])[:, ::-1] + 0.5
    corners = to_level0(with_patch, outline, page.shape[0])
    per_pixel = np.abs(np.diff(to_level0(with_patch, np.array([[0.0, 0.0], [1.0, 1.0]]), page.shape[0]), axis=0))[0]
    expected = [box[0, :2], box[0, :2] + box[0, 2:]]
    assert np.abs([corners.min(axis=0), corners.max(axis=0)] - np.array(expected)).max() <= 3.5 * per_pixel.max()

    origin = slide.facts.origin
    objects = geojson(attention, cells, box, attention_at=[0.5], weights=[1.0], origin=origin)["features"]
    point = np.array(centre) - origin
    regions = [f for f in objects if f["properties"]["objectType"] == "annotation"]
    biggest = max(regions, key=lambda f: f["properties"]["measurements"]["attention"])
    outer = np.array(biggest["geometry"]["coordinates"][0])
    assert Ring(outer).contains_point(point)
    assert (np.abs((outer.min(axis=0) + outer.max(axis=0)) / 2 - point) <= cell).all()


@pytest.mark.parametrize(
    ("size", "centre", "options", "attention_mpp", "cell_px"),
    [
        ((2048, 1536), (1301.0, 402.0), {}, 8.0, 4),
        ((1801, 2403), (1210.0, 1805.0), {"factor": 3, "levels": 3, "tile": 240}, 7.3, 3),
        ((2111, 1603), (1540.5, 1150.5), {"factor": 5, "levels": 2, "mpp": 0.37}, 5.1, 5),
        ((1500, 1307), (505.0, 905.0), {"factor": 2, "levels": 4, "compression": "deflate"}, 16.0, 1),
    ],
)
def test_blob_of_a_pyramidal_slide_is_found_where_it_is(
    tmp_path: Path,
    size: tuple[int, int],
    centre: tuple[float, float],
    options: dict[str, object],
    attention_mpp: float,
    cell_px: int,
) -> None:
    image = blob_image(*size, *centre, radius=110)
    slide = open_slide(write_slide(tmp_path / "slide.tif", image, photometric="rgb", **options))
    check_blob(slide, centre, attention_mpp, cell_px)


@pytest.mark.parametrize("mpp", [Mpp(0.5, 0.5), Mpp(0.42, 0.55)])
def test_blob_is_found_within_bounds_away_from_the_corner(tmp_path: Path, mpp: Mpp) -> None:
    """As in MRXS: the scan is a part of the level, and OpenSlide's frame starts at the level's corner."""
    centre, bounds = (1302.0, 1001.0), Box(337, 211, 1703, 1399)
    inner = blob_image(bounds.width, bounds.height, centre[0] - bounds.x, centre[1] - bounds.y, radius=110)
    full = np.full((1801, 2501, 3), 255, np.uint8)
    full[bounds.y : bounds.y + bounds.height, bounds.x : bounds.x + bounds.width] = inner
    small = full[:1800, :2499].reshape(600, 3, 833, 3, 3).mean((1, 3)).astype(np.uint8)
    facts = open_slide(write_slide(tmp_path / "any.tif", full, photometric="rgb")).facts
    levels = (level_raster((2501, 1801), (2501, 1801)), level_raster((2501, 1801), (833, 600)))
    sides = ((2501, 1801), (833, 600))
    facts = replace(facts, levels=levels, tile_sizes=sides, bounds=bounds, origin=(bounds.x, bounds.y), mpp=mpp)
    check_blob(ArraySlide(facts, [full, small]), centre, 8.0, 4)


def test_attention_off_and_below_uniform_leaves_the_tissue_as_it_is() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (2, 3, 3)).astype(np.uint8)
    multiple = np.array([[0.0, 0.5, 1.0], [1.5, 3.0, 9.0]])
    picture = Image.fromarray(rgb)
    lay(picture, coloured(multiple, 9.0))
    mixed = np.asarray(picture)
    assert np.array_equal(mixed[0], rgb[0])
    assert (mixed[1] != rgb[1]).any(axis=1).all()


@given(st.floats(1e-3, 1e7))
def test_scale_bars_are_round_and_as_long_as_fits(most: float) -> None:
    length = round_length(most)
    digits = length / 10.0 ** math.floor(math.log10(length) + 1e-9)
    assert min(abs(digits - d) for d in (1, 2, 5)) < 1e-6
    assert most / 2.5 * (1 - 1e-6) <= length <= most * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (2000, 6000), (20, 3000), (900, 40)])
def test_any_thumbnail_gives_a_sensible_page(tmp_path: Path, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(100, 250, (*shape, 3)).astype(np.uint8)
    thumbnail = Thumbnail(rgb, Raster(10, 20, 32, 32, shape[1], shape[0]), 16.0)
    cells = thumbnail.raster.pooled(4, 2, -(-shape[1] // 4), -(-shape[0] // 4))
    attention = rng.dirichlet(np.ones(cells.width * cells.height)).reshape(cells.shape)
    path = tmp_path / "overlay.tmp"
    draw_overlay(path, thumbnail, attention, cells, [[10, 20, 64, 64]], title="any", mpp_level0=Mpp(0.5, 0.5))
    with Image.open(path) as page:
        assert page.format == "JPEG"
        assert 600 <= page.width <= 1900
        assert 100 <= page.height <= 1500


def test_titles_may_hold_anything(tmp_path: Path) -> None:
    """A name is not mathematics, and a letter that the font lacks is no reason to warn or fail."""
    thumbnail = Thumbnail(np.full((9, 9, 3), 200, np.uint8), Raster(0, 0, 32, 32, 9, 9), 16.0)
    for title in ("$x_{", "組織 <b>\n\t", "\udcff\x07", "", "long " * 60):
        draw_overlay(
            tmp_path / "o.jpg", thumbnail, np.ones((1, 1)), Raster(0, 0, 288, 288, 1, 1), np.empty((0, 4)),
            title=title, mpp_level0=Mpp(0.5, 0.5),
        )  # fmt: skip
        assert (tmp_path / "o.jpg").stat().st_size > 1000


@pytest.mark.parametrize("name", ["W" * 150, "positive_slide_of_a_long_name-" * 9, "MMMM " * 40])
def test_a_long_title_stays_on_the_page(name: str) -> None:
    thumbnail = Thumbnail(np.full((9, 9, 3), 200, np.uint8), Raster(0, 0, 32, 32, 9, 9), 16.0)
    cells = Raster(0, 0, 288, 288, 1, 1)
    page = overlay_page(thumbnail, np.ones((1, 1)), cells, np.empty((0, 4)), title=name, mpp_level0=Mpp(0.5, 0.5))
    written = np.asarray(page.image.convert("L"))[: page.place[1] - 1] < 128
    assert not written[:, -10:].any()
    assert len(np.flatnonzero(np.diff(written.any(axis=1).astype(int)) == 1)) > 1  # lines


def test_what_makes_a_prediction_doubtful_stands_in_red_below_the_title() -> None:
    thumbnail = Thumbnail(np.full((9, 9, 3), 200, np.uint8), Raster(0, 0, 32, 32, 9, 9), 16.0)
    how: dict[str, Any] = {"title": "t 0.50", "mpp_level0": Mpp(0.5, 0.5)}
    parts = thumbnail, np.ones((1, 1)), Raster(0, 0, 288, 288, 1, 1), np.empty((0, 4))

    def told(page: Page) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where letters are black and where they are red, by row, above the picture."""
        head = np.asarray(page.image)[: page.place[1] - 1].astype(int)
        return (head.max(axis=2) < 100).any(axis=1), (head[..., 0] - head[..., 1] > 100).any(axis=1)

    plain, warned = (overlay_page(*parts, **how, warned=lines) for lines in ((), ("it looks unlike", "pen " * 900)))
    black, red = told(warned)
    assert not told(plain)[1].any()
    assert np.flatnonzero(black).max() < np.flatnonzero(red).min()
    lines = np.flatnonzero(np.diff(red.astype(int)) == 1)
    assert len(lines) == WARNED, "a long one is shortened"
    assert not red[-4:].any()
    assert (warned.image.height - plain.image.height) == warned.place[1] - plain.place[1]
    evidence = evidence_page(*parts, **how, name="t", interpolated=False, warned=["it looks unlike"])
    assert told(evidence)[1].any()


def test_drawing_in_threads_gives_the_same_pictures(tmp_path: Path) -> None:
    def one(n: int) -> bytes:
        rgb = np.random.default_rng(n % 2).integers(100, 250, (60, 50, 3)).astype(np.uint8)
        thumbnail = Thumbnail(rgb, Raster(0, 0, 32, 32, 50, 60), 16.0)
        cells = thumbnail.raster.pooled(10, 5, 5, 6)
        path = tmp_path / f"{n}.jpg"
        draw_overlay(path, thumbnail, np.eye(6, 5) / 5, cells, [[0, 0, 99, 99]], title="t", mpp_level0=Mpp(0.5, 0.5))
        return path.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(one, range(8)))) == 2


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "attention_mpp"), [("CMU-1-Small-Region.svs", 8.0), ("test3-DAPI-2-(387).ndpi", 8.0)])
def test_patches_of_a_real_slide_show_what_their_outlines_frame(
    shared_data: Path, name: str, attention_mpp: float
) -> None:
    """The picture inside an outline resembles the patch read there more than anything a cell or half a cell aside."""
    slide = open_slide(shared_data / "slides" / name)
    thumbnail, attention, cells = attend(slide, attention_mpp, 4)
    best = np.argsort(attention.ravel())[-8:]
    boxes = PatchReader(slide, cells, 256, 0.5).boxes_level0(best)
    figure = overlay_figure(thumbnail, np.zeros_like(attention), cells, boxes[:0], title=name, mpp_level0=Mpp(1, 1))
    page = picture(figure).astype(float)
    shifts = [(i, j) for i in (-4, -2, 0, 2, 4) for j in (-4, -2, 0, 2, 4)]
    likeness = np.zeros(len(shifts))
    for x, y, w, h in boxes:
        patch = render(slide, Raster(x, y, w / 16, h / 16, 16, 16)).astype(float)  # at the thumbnail's resolution
        for n, (i, j) in enumerate(shifts):
            u, v = np.meshgrid(x + w * (np.arange(16) + 0.5 + i) / 16, y + h * (np.arange(16) + 0.5 + j) / 16)
            at = figure.axes[0].transData.transform(np.stack([u.ravel(), v.ravel()], axis=1))
            rows = np.floor(page.shape[0] - at[:, 1]).astype(int).clip(0, page.shape[0] - 1)
            seen = page[rows, np.floor(at[:, 0]).astype(int).clip(0, page.shape[1] - 1)]
            likeness[n] += np.corrcoef(patch.ravel(), seen.ravel())[0, 1] / len(boxes)
    assert shifts[int(likeness.argmax())] == (0, 0)
    assert likeness.max() > 0.7


@pytest.mark.parametrize(("width", "height"), [(50, 60), (90, 30)])
def test_the_slide_stands_beside_its_map_as_it_is(width: int, height: int) -> None:
    """To the left, or above where it is wide; with nothing on it."""
    rng = np.random.default_rng(0)
    thumbnail = Thumbnail(
        rng.integers(100, 250, (height, width, 3)).astype(np.uint8), Raster(7, 9, 32, 32, width, height), 16.0
    )
    cells = thumbnail.raster.pooled(10, 5, width // 10, height // 10)
    attention = rng.dirichlet(np.ones(cells.width * cells.height)).reshape(cells.shape)
    page = overlay_page(thumbnail, attention, cells, [[40, 50, 300, 300]], title="t", mpp_level0=Mpp(0.5, 0.5))
    left, upper, right, lower = page.place
    w, h = right - left, lower - upper
    plain = page.image.crop(
        (left, upper - h - GAP, right, upper - GAP)
        if width > 2 * height
        else (left - w - GAP, upper, left - GAP, lower)
    )
    assert np.array_equal(plain, picture_of(thumbnail, Mpp(0.5, 0.5))[0])
    assert not np.array_equal(plain, page.image.crop(page.place))


def test_a_page_says_what_colours_mean_and_what_the_interval_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, float, float, float]] = []

    def text(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **how: Any) -> None:
        said.append((text, *xy, how["font"].getlength(text)))

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    thumbnail = Thumbnail(np.full((9, 9, 3), 200, np.uint8), Raster(0, 0, 32, 32, 9, 9), 16.0)
    cells, inset = (
        Raster(0, 0, 288, 288, 1, 1),
        Inset("1", Image.new("RGB", (256, 256)), (0, 0, 64, 64), 32, "+1", (0, 0, 0)),
    )
    how = {
        "title": "t 0.5 [0.4, 0.6]",
        "mpp_level0": Mpp(0.5, 0.5),
        "insets": [inset] * 6,
        "insets_told": "close up " * 40,
    }
    page = overlay_page(thumbnail, np.ones((1, 1)), cells, [[0, 0, 64, 64]], **how)  # type: ignore[arg-type]
    whole = " ".join(text for text, *_ in said)
    for told in (
        "where the model looked",
        "not how often the model is right",
        "not a medical device",
        "the slide as it is",
    ):
        assert told in whole
    assert all(x >= 0 and x + wide <= page.image.width and y <= page.image.height for _, x, y, wide in said)


def test_what_has_no_interval_and_no_pixels_is_not_said_to_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a bag, all of which was read."""
    said: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, **how: said.append(text))
    thumbnail = Thumbnail(np.full((9, 9, 3), 200, np.uint8), Raster(0, 0, 32, 32, 9, 9), 16.0)
    cells, how = Raster(0, 0, 288, 288, 1, 1), {"title": "t: 0.5, exact", "mpp_level0": Mpp(0.5, 0.5)}
    page = overlay_page(thumbnail, np.ones((1, 1)), cells, [[0, 0, 64, 64]], alone=True, **how)  # type: ignore[arg-type]
    whole = " ".join(said)
    assert "In brackets" not in whole
    assert "as it is" not in whole
    assert "not a medical device" in whole
    assert page.image.width < 2 * (page.place[2] - page.place[0])


def test_colours_are_told_apart_in_every_colour_blindness() -> None:
    """By the linear maps of Machado, Oliveira and Fernandes (2009) at full severity: more attention is lighter, and
    evidence for a class is far from evidence against it."""
    sight = {
        "full": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }

    def lab(rgb: Sequence[tuple[int, int, int]], seen: Any) -> NDArray[np.float64]:
        share = np.asarray(rgb, float) / 255
        linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
        linear = np.clip(linear @ np.asarray(seen).T, 0, 1)
        shown = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
        return color.rgb2lab(shown[None])[0]

    for name, seen in sight.items():
        assert (np.diff(lab(COLOURS, seen)[:, 0]) > 3).all(), name
        one, other = lab([FOR, AGAINST], seen)
        assert np.hypot.reduce(one - other) > 40, name
