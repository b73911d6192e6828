"""A level is one that shows level 0's picture at one factor; what is none is left out by name, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stages.geometry import Box, Raster
from stages.slide import files
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.levels import Levels, find_levels
from stages.slide.render import render

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 4000, 2600


@pytest.fixture(scope="module")
def slide() -> Pixels:
    """Stained tissue that nowhere repeats itself, with glass around it."""
    image = tissue_pixels(WIDTH, HEIGHT, margin=0.05).astype(np.int16)
    blots = np.random.default_rng(0).normal(0, 25, (HEIGHT // 20, WIDTH // 20, 1)).astype(np.int16)
    top, left = HEIGHT // 20, WIDTH // 20
    image[top:-top, left:-left] += blots.repeat(20, 0).repeat(20, 1)[top:-top, left:-left]
    return image.clip(0, 255).astype(np.uint8)


def reduced(image: Pixels, factor: int) -> Pixels:
    """Means of squares; what is left over at the far edges is dropped, as most scanners do."""
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.BOX, (0, 0, size[0] * factor, size[1] * factor)))


def found(pictures: Sequence[Pixels], *, tile: int = 256, factors: Sequence[float | None] = ()) -> Levels:
    """What becomes of pictures that a file calls its levels."""

    def read(level: int, box: Box) -> Pixels:
        return pictures[level][box.y : box.y + box.height, box.x : box.x + box.width]

    sizes = [(picture.shape[1], picture.shape[0]) for picture in pictures]
    return find_levels(sizes, [(tile, tile)] * len(sizes), read, factors=factors)


def jpeg(image: Pixels) -> Pixels:
    import imagecodecs

    return imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(image, level=30))


def filtered(*filters: ImageFilter.Filter) -> Callable[[Pixels], Pixels]:
    def apply(image: Pixels) -> Pixels:
        picture = Image.fromarray(image)
        for each in filters:
            picture = picture.filter(each)
        return np.asarray(picture)

    return apply


def in_linear_light(image: Pixels) -> Pixels:
    return (255 * ((image / 255) ** 2.2 * 1.06).clip(0, 1) ** (1 / 2.2)).astype(np.uint8)


STAY: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": lambda image: image,
    "compressed harder": jpeg,
    "blurred": filtered(ImageFilter.GaussianBlur(1.5)),
    "sharpened": filtered(ImageFilter.UnsharpMask(2, 200, 0)),
    "a little brighter": in_linear_light,
    "one pixel off": lambda image: np.roll(image, 1, (0, 1)),
}


@pytest.mark.parametrize("change", STAY)
@pytest.mark.parametrize("factor", [2, 4, 16])
def test_what_a_scanner_makes_of_a_level_stays_one(slide: Pixels, change: str, factor: int) -> None:
    """Its resampling, sharpening and compression are its own."""
    levels = found([slide, STAY[change](reduced(slide, factor))])
    assert (levels.numbers, levels.left_out) == ((0, 1), ())
    assert levels.rasters[1] == Raster(0, 0, factor, factor, WIDTH // factor, HEIGHT // factor)


def test_a_level_of_every_fourth_pixel_stays_one(slide: Pixels) -> None:
    """Some writers take pixels instead of averages."""
    assert found([slide, np.ascontiguousarray(slide[::4, ::4])]).numbers == (0, 1)


NONE: dict[str, tuple[Callable[[Pixels], Pixels], str]] = {
    "mirrored": (lambda image: image[:, ::-1], "not what level 1 shows there"),
    "turned": (lambda image: image[::-1, ::-1], "not what level 1 shows there"),
    "another part": (lambda image: np.roll(image, 60, 1), "not what level 1 shows there"),
    "never written": (lambda image: np.zeros_like(image), "not what level 1 shows there"),
    "never written, white": (lambda image: np.full_like(image, 255), "not what level 1 shows there"),
    "red and blue exchanged": (lambda image: image[..., ::-1], "its colours are not those of level 1"),
    "cropped to whole tiles": (lambda image: image[:, :224], "not what level 1 shows there"),
    "stretched": (lambda image: np.repeat(image, 2, 1), "at one factor (8x along x, 16.05x along y)"),
}


@pytest.mark.parametrize("change", NONE)
def test_a_picture_that_is_no_level_is_left_out_and_the_others_stay(slide: Pixels, change: str) -> None:
    """Its number, size and what is wrong with it are said; coarser levels are compared with the one before it."""
    make, words = NONE[change]
    wrong = np.ascontiguousarray(make(reduced(slide, 16)))
    levels = found([slide, reduced(slide, 4), wrong, reduced(slide, 32)], tile=32)
    assert levels.numbers == (0, 1, 3), levels
    (told,) = levels.left_out
    assert told.startswith(f"level 2 ({wrong.shape[1]} x {wrong.shape[0]} px) is left out: ")
    assert words in told, told


@pytest.mark.parametrize("shape", [(1200, 500), (250, 163), (256, 170)])
def test_a_macro_photograph_among_levels_is_left_out(slide: Pixels, shape: tuple[int, int]) -> None:
    """The whole glass with its label, the scan somewhere on it, whatever its size."""
    width, height = shape
    macro = np.full((height, width, 3), 200, np.uint8)
    small = np.asarray(Image.fromarray(slide).resize((width // 2, height // 2), Image.BOX))
    macro[height // 3 : height // 3 + small.shape[0], width // 3 : width // 3 + small.shape[1]] = small
    macro[:, : width // 5 : 7] = 0  # the label's print
    levels = found([slide, reduced(slide, 4), macro])
    assert levels.numbers == (0, 1), levels


@pytest.mark.parametrize(("tile", "factors"), [(256, ()), (64, ()), (256, (1, 4, 16)), (256, (1, 2, 64))])
def test_levels_that_are_padded_to_whole_tiles_lie_where_they_are(
    slide: Pixels, tile: int, factors: tuple[float, ...]
) -> None:
    """At the factor at which they show what level 0 shows, not at the quotient of the sizes, whatever tags say."""

    def padded(image: Pixels) -> Pixels:
        rows, columns = (-side % tile for side in image.shape[:2])
        return np.pad(image, ((0, rows), (0, columns), (0, 0)), constant_values=255)

    levels = found([slide, padded(reduced(slide, 4)), padded(reduced(slide, 16))], tile=tile, factors=factors)
    assert levels.left_out == ()
    assert [(level.scale_x, level.scale_y) for level in levels.rasters] == [(1, 1), (4, 4), (16, 16)]


def test_where_there_is_nothing_to_compare_sizes_are_trusted() -> None:
    """Glass looks alike everywhere; tiny levels tell nothing either."""
    rng = np.random.default_rng(0)
    glass = rng.normal(240, 2, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    levels = found([glass, reduced(glass, 4)[:, ::-1], reduced(glass, 512)], factors=(1, 2, None))
    assert [level.scale_x for level in levels.rasters] == [1, 4, 512]
    assert levels.left_out == ()


def test_damage_is_not_a_matter_of_levels(slide: Pixels) -> None:
    """What cannot be read is said where it is read; sizes hold until then."""
    levels = find_levels([(4000, 2600), (1000, 650)], [(256, 256)] * 2, lambda level, box: None)
    assert levels.numbers == (0, 1)


def test_no_more_is_read_than_a_few_tiles(slide: Pixels) -> None:
    """Opening costs no more for a larger slide: windows are small, whatever the factor."""
    asked: list[Box] = []
    pictures = [slide, reduced(slide, 4), reduced(slide, 16)]

    def read(level: int, box: Box) -> Pixels:
        asked.append(box)
        return pictures[level][box.y : box.y + box.height, box.x : box.x + box.width]

    find_levels([(p.shape[1], p.shape[0]) for p in pictures], [(256, 256)] * 3, read)
    assert len(asked) <= 14
    assert sum(box.area for box in asked) <= 3 * 2**18


def write_pages(path: Path, pages: Sequence[tuple[Pixels, float, int]]) -> Path:
    """A tiled TIFF of pictures, each with its own µm/px and type (1: reduced)."""
    with tifffile.TiffWriter(path) as tiff:
        for image, mpp, kind in pages:
            tiff.write(
                image,
                photometric="rgb",
                tile=(256, 256),
                compression="jpeg",
                subfiletype=kind,
                metadata=None,
                resolution=(1e4 / mpp,) * 2,
                resolutionunit="CENTIMETER",
            )
    return path


def test_a_files_levels_keep_their_numbers(slide: Pixels, tmp_path: Path) -> None:
    """A mirrored level between two right ones is left out of the facts, and the one after it is still itself."""
    wrong = np.ascontiguousarray(reduced(slide, 4)[:, ::-1])
    pages = [(slide, 0.5, 0), (wrong, 2.0, 1), (reduced(slide, 8), 4.0, 1)]
    opened = open_slide(write_pages(tmp_path / "a.tif", pages))
    assert [level.scale_x for level in opened.facts.levels] == [1, 8]
    assert opened.facts.warnings == (
        "level 1 (1000 x 650 px) is left out: what it shows is not what level 0 shows there",
    )
    shown = render(opened, Raster(0, 0, 8, 8, 500, 325)).astype(int)
    assert np.abs(shown - reduced(slide, 8)).mean() < 5
    again = open_slide(write_slide(tmp_path / "b.tif", slide, levels=3))
    assert (len(again.facts.levels), again.facts.doubts) == (3, ())


def test_pages_in_any_order(slide: Pixels, tmp_path: Path) -> None:
    """Where all are marked as reduced, OpenSlide sorts them but takes the first one's resolution for level 0's."""
    pages = [(reduced(slide, 16), 8.0, 1), (slide, 0.5, 1), (reduced(slide, 4), 2.0, 1)]
    facts = open_slide(write_pages(tmp_path / "a.tif", pages)).facts
    assert [level.scale_x for level in facts.levels] == [1, 4, 16]
    assert facts.require_mpp().x == pytest.approx(0.5)


def test_a_file_whose_finest_picture_is_not_read_is_refused(slide: Pixels, tmp_path: Path) -> None:
    """It comes second and is not marked as reduced, so that OpenSlide leaves it out: a smaller slide, and all wrong."""
    pages = [(reduced(slide, 4), 2.0, 1), (slide, 0.5, 0)]
    with pytest.raises(SlideError, match=r"4000 x 2600 px, larger than the 1000 x 650 px.*finest level first"):
        open_slide(write_pages(tmp_path / "a.tif", pages))


@pytest.mark.realdata
def test_levels_that_a_scanner_vouches_for_are_those_that_comparing_finds(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_data / "slides" / "test3-DAPI-2-(387).ndpi"
    found = open_slide(path).facts
    monkeypatch.setattr(files, "VOUCHED", ())
    assert found == open_slide(path).facts
