"""What a slide says of itself, and what comes of slides that are odd, damaged or hostile."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from makers import change_tags, empty_tile, spoil, tissue_pixels, write_slide
from numpy.typing import NDArray

from stages.geometry import Box, Mpp, Raster
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.chunk_cache import CachedSlide, ChunkCache
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError, _bounds
from stages.slide.files import OpenSlideSlide, open_slide
from stages.slide.protocol import Slide

APERIO = "Aperio Image Library v11.2.1\r\n1024x1024 (256x256) JPEG/RGB Q=30|AppMag = 20|MPP = 0.5"


def write_rgba(path: Path, image: NDArray[np.uint8]) -> Path:
    """A tiled TIFF with transparency: its tiles are not plain, so OpenSlide reads it."""
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            image,
            tile=(256, 256),
            photometric="rgb",
            extrasamples=["unassalpha"],
            compression="deflate",
            metadata=None,
            resolution=(20000, 20000),
            resolutionunit="CENTIMETER",
        )
    return path


def whole(raster: Raster) -> Box:
    return Box(0, 0, raster.width, raster.height)


def test_facts_of_a_plain_slide(slides_folder: Path) -> None:
    """Levels, tiles, resolution and bounds are what was written."""
    facts = open_slide(slides_folder / "odd.tif").facts
    assert facts.levels == (Raster(0, 0, 1, 1, 1803, 2401), Raster(0, 0, 4, 4, 450, 600))
    assert facts.tile_sizes == ((240, 240), (240, 240))
    assert (facts.mpp, facts.mpp_source, facts.mpp_problem) == (Mpp(0.5, 0.5), "file", None)
    assert facts.bounds == Box(0, 0, 1803, 2401)
    assert (facts.vendor, facts.background, facts.associated) == ("generic-tiff", (255, 255, 255), ())
    assert facts.file_bytes == (slides_folder / "odd.tif").stat().st_size


def test_mpp_of_the_two_axes_may_differ(tmp_path: Path) -> None:
    """A slide scanned at 0.5 x 0.25 µm/px is just that."""
    path = write_slide(
        tmp_path / "a.tif",
        tissue_pixels(300, 300),
        mpp=None,
        levels=1,
        resolution=(2e4, 4e4),
        resolutionunit="CENTIMETER",
    )
    assert open_slide(path).facts.require_mpp() == Mpp(0.5, 0.25)


def test_an_override_replaces_the_files_mpp(slides_folder: Path) -> None:
    """What the user says of the resolution goes before what the file says; the content stays the same slide."""
    own, told = open_slide(slides_folder / "even.tif").facts, open_slide(slides_folder / "even.tif", mpp=0.25).facts
    assert (told.mpp, told.mpp_source) == (Mpp(0.25, 0.25), "override")
    assert replace(told, mpp=own.mpp, mpp_source="file") == own


@pytest.mark.parametrize("mpp", [math.nan, 0.0, -0.5, 0.005, 352.8, math.inf])
def test_an_implausible_override_is_refused(slides_folder: Path, mpp: float) -> None:
    """A resolution that no microscope has is not taken from the user either."""
    with pytest.raises(SlideError, match=r"implausible.*--mpp"):
        open_slide(slides_folder / "even.tif", mpp=mpp).facts.require_mpp()


def test_a_missing_mpp_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """A slide that does not say its resolution opens, but nothing physical can be asked of it."""
    facts = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), mpp=None, levels=1)).facts
    assert (facts.mpp, facts.mpp_source) == (None, "none")
    with pytest.raises(SlideError, match=r"does not say its resolution.*--mpp.*cohort table"):
        facts.require_mpp()


@pytest.mark.parametrize(
    ("claimed", "bounds"),
    [
        (("100", "50", "300", "200"), Box(100, 50, 300, 200)),
        (("900", "700", "300", "200"), Box(900, 700, 100, 100)),
        (("5000", "0", "10", "10"), Box(0, 0, 1000, 800)),
        (("a", "50", "300", "200"), Box(0, 0, 1000, 800)),
    ],
)
def test_bounds_lie_inside_the_slide(claimed: tuple[str, str, str, str], bounds: Box) -> None:
    """What the file says was scanned is cut to the slide; where nothing is left of it, it is the whole slide."""
    keys = (f"openslide.bounds-{name}" for name in ("x", "y", "width", "height"))
    assert _bounds(dict(zip(keys, claimed, strict=True)), (1000, 800)) == bounds


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImageWidth": 2**23}, "claims 8388608 x 512 pixels"),
        (
            {"ImageWidth": 2**15, "ImageLength": 2**15, "TileWidth": 2**14, "TileLength": 2**14},
            "tiles of 16384 x 16384",
        ),
        ({"TileWidth": 2**15, "TileLength": 2**15}, "tiles of 32768 x 32768"),
    ],
)
def test_absurd_dimensions_are_refused_when_opened(tmp_path: Path, tags: dict[str, int], message: str) -> None:
    """A header that claims terapixels or a tile of a gigapixel is refused before anything is allocated for it."""
    path = change_tags(write_slide(tmp_path / "a.tif", tissue_pixels(512, 512), levels=1), **tags)
    with pytest.raises(SlideError, match=message):
        open_slide(path)


def test_what_is_no_slide_is_refused(tmp_path: Path) -> None:
    """A missing file, a text file, an empty file and a folder each get a clear line."""
    (tmp_path / "text.svs").write_text("hello")
    (tmp_path / "empty.svs").touch()
    with pytest.raises(SlideError, match="no such file"):
        open_slide(tmp_path / "missing.svs")
    for name in ("text.svs", "empty.svs", "."):
        with pytest.raises(SlideError, match="not a whole-slide image"):
            open_slide(tmp_path / name)


def test_the_fingerprint_is_that_of_the_content(slides_folder: Path, tmp_path: Path) -> None:
    """A renamed copy with another date is the same slide; one changed byte in what is sampled makes another."""
    own = open_slide(slides_folder / "even.tif").facts.fingerprint
    copy = Path(shutil.copy(slides_folder / "even.tif", tmp_path / "renamed copy.tif"))
    os.utime(copy, (1, 1))
    assert open_slide(copy).facts.fingerprint == own
    with copy.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    changed = open_slide(copy).facts.fingerprint
    assert changed != own
    with copy.open("ab") as file:
        file.write(b"more")
    assert open_slide(copy).facts.fingerprint not in (own, changed)


def test_transparent_parts_read_as_background(tmp_path: Path) -> None:
    """What was never scanned is background, not black; half of it, half."""
    rgba = np.dstack([tissue_pixels(512, 512, margin=0), np.full((512, 512), 255, np.uint8)])
    rgba[:100, :, 3] = 0
    rgba[100:200] = (10, 20, 30, 128)
    slide = open_slide(write_rgba(tmp_path / "a.tif", rgba))
    assert not slide.direct(0)
    pixels = slide.read_level(0, whole(slide.facts.levels[0]))
    assert (pixels[:100] == 255).all()
    # 8-bit premultiplied alpha is exact to one grey level each way
    np.testing.assert_allclose(pixels[100:200].mean((0, 1)), np.array([10, 20, 30]) / 2 + 127.5, atol=2)
    np.testing.assert_array_equal(pixels[200:], rgba[200:, :, :3])


def test_a_tile_that_aperio_leaves_out_shows_the_finer_level(tmp_path: Path) -> None:
    """Aperio's missing tiles are blank at level 0 only; above it the finer level shows through, as in OpenSlide."""
    path = write_slide(tmp_path / "a.svs", tissue_pixels(1024, 1024, margin=0), description=APERIO)
    empty_tile(path, 0, 5)
    empty_tile(path, 1, 3)
    slide = open_slide(path)
    assert slide.facts.vendor == "aperio"
    assert slide.direct(0)
    assert not slide.direct(1)
    blank = slide.read_level(0, Box(256, 256, 256, 256))
    shown = slide.read_level(1, Box(256, 256, 256, 256))
    assert (blank == 255).all()
    assert shown.std() > 10


def test_reads_do_not_depend_on_how_they_are_cut(tmp_path: Path) -> None:
    """Off whole downsamples OpenSlide interpolates; a pixel is the same whatever region it is read in."""
    rgba = np.dstack([tissue_pixels(1201, 903, margin=0), np.full((903, 1201), 255, np.uint8)])
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level, image in enumerate((rgba, np.ascontiguousarray(rgba[::3, ::3][:, :399]))):
            tiff.write(
                image,
                subfiletype=level,
                tile=(128, 128),
                photometric="rgb",
                extrasamples=["unassalpha"],
                compression="deflate",
                metadata=None,
            )
    slide = open_slide(path)
    assert not slide.direct(1)
    with openslide.OpenSlide(path) as handle:
        assert not handle.level_downsamples[1].is_integer()
    level = slide.read_level(1, whole(slide.facts.levels[1]))
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.integers(0, 380), rng.integers(0, 280)
        box = Box(int(x), int(y), int(rng.integers(1, 399 - x + 1)), int(rng.integers(1, 301 - y + 1)))
        part = level[box.y : box.y + box.height, box.x : box.x + box.width]
        np.testing.assert_array_equal(slide.read_level(1, box), part)


def test_a_slide_pickles_small_and_without_its_handle(slides_folder: Path) -> None:
    """What travels to a worker is the path and the facts, and it reads the same there."""
    slide = open_slide(slides_folder / "even.tif")
    pixels = slide.read_level(0, Box(700, 500, 64, 64))
    shipped = pickle.dumps(slide)
    assert len(shipped) < 3000
    np.testing.assert_array_equal(pickle.loads(shipped).read_level(0, Box(700, 500, 64, 64)), pixels)


def _read(slide: OpenSlideSlide) -> tuple[int, NDArray[np.uint8]]:
    return os.getpid(), slide.read_level(0, Box(300, 200, 64, 64))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_every_process_opens_its_own_handle(tmp_path: Path, method: str) -> None:
    """A slide that was opened and read here reads the same in a process that it is sent to."""
    rgba = np.dstack([tissue_pixels(512, 512), np.full((512, 512), 255, np.uint8)])
    slide = open_slide(write_rgba(tmp_path / "a.tif", rgba))
    here = _read(slide)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        there = pool.submit(_read, slide).result(timeout=60)
    assert there[0] != here[0]
    np.testing.assert_array_equal(there[1], here[1])


def test_a_read_error_does_not_stick(tmp_path: Path) -> None:
    """OpenSlide's handles answer nothing after an error; ours is opened again, and the rest of the slide reads."""
    rgba = np.dstack([tissue_pixels(768, 768, margin=0), np.full((768, 768), 255, np.uint8)])
    path = write_rgba(tmp_path / "a.tif", rgba)
    spoil(path, 0, 4)
    slide = open_slide(path)
    for _ in range(2):
        with pytest.raises(SlideError, match=r"cannot read level 0 at \(256, 256\).*copy or scan it again"):
            slide.read_level(0, Box(256, 256, 100, 100))
        np.testing.assert_array_equal(slide.read_level(0, Box(0, 0, 256, 256)), rgba[:256, :256, :3])


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_slide_that_vanishes_is_a_slide_error(tmp_path: Path, compression: str) -> None:
    """A share that goes away in the middle of a run fails this slide, with a clear line."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), compression=compression)
    shipped = pickle.dumps(open_slide(path))
    path.unlink()
    with pytest.raises(SlideError):
        pickle.loads(shipped).read_level(0, Box(0, 0, 64, 64))


@pytest.fixture(
    scope="module", params=["its tiles", "OpenSlide", "native pyramid", "portable pyramid", "chunks on disk"]
)
def any_slide(request: pytest.FixtureRequest, slides_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """Every implementation of the protocol."""
    folder = tmp_path_factory.mktemp("any")
    slide: Slide = open_slide(slides_folder / "odd.tif")
    if request.param == "OpenSlide":
        image = tissue_pixels(1803, 2401)
        slide = open_slide(write_rgba(folder / "a.tif", np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])))
        assert not slide.direct(0)
    elif request.param == "chunks on disk":
        slide = CachedSlide(slide, ChunkCache(folder / "chunks", 10**8))
    elif request.param != "its tiles":
        profile = request.param.split()[0]
        slide = open_pyramid(cache_pyramid(slide, folder / "a.zarr", profile=profile, everything=True))
    return slide


def test_boxes_read_together_are_those_read_alone(any_slide: Slide) -> None:
    """Tiles, parts of tiles, boxes over many, the same box twice, corners, none; by threads, and after a pickle."""
    level = any_slide.facts.levels[0]
    tile = any_slide.facts.tile_sizes[0][0]
    boxes = [Box(tile, 2 * tile, tile, tile)] * 2 + [Box(300, 500, 256, 256), Box(0, 0, 700, 300)]
    boxes += [Box(x, y, 1, 1) for x in (0, level.width - 1) for y in (0, level.height - 1)]
    alone = [any_slide.read_level(0, box) for box in boxes]
    shipped: Slide = pickle.loads(pickle.dumps(any_slide))
    with ThreadPoolExecutor(4) as pool:
        tries = list(pool.map(lambda _: shipped.read_boxes(0, boxes), range(4)))
    for together in tries:
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)
    assert any_slide.read_boxes(0, []) == []
    assert any_slide.tile_bytes(0).shape == (-(-level.height // tile), -(-level.width // tile))


def test_boxes_are_read_into_the_memory_that_is_given(any_slide: Slide) -> None:
    """Contiguous memory or not: only the boxes' own pixels are touched, and what was given is what comes back."""
    boxes = [Box(240, 480, 240, 240), Box(240, 480, 240, 240), Box(300, 500, 256, 256), Box(0, 0, 700, 300)]
    memory = np.full((4, 800, 800, 3), 7, np.uint8)
    for out in (
        [m[50:][: box.height, 60:][:, : box.width] for m, box in zip(memory, boxes, strict=True)],
        [np.empty((box.height, box.width, 3), np.uint8) for box in boxes],
    ):
        found = any_slide.read_boxes(0, boxes, out=out)
        for target, pixels, box in zip(out, found, boxes, strict=True):
            assert pixels is target
            np.testing.assert_array_equal(pixels, any_slide.read_level(0, box))
    for m, box in zip(memory, boxes, strict=True):
        m[50 : 50 + box.height, 60 : 60 + box.width] = 7
    assert (memory == 7).all()


REAL = [
    (
        "CMU-1-Small-Region.svs",
        {"vendor": "aperio", "mpp": Mpp(0.499, 0.499), "objective_power": "20", "tile_sizes": ((240, 240),)},
        [(2220, 2967, 1)],
    ),
    (
        "test3-DAPI-2-(387).ndpi",
        {"vendor": "hamamatsu", "mpp": Mpp(0.2281750559028887, 0.2281750559028887), "associated": ("macro",)},
        [(3968 >> i, 4864 >> i, 1 << i) for i in range(7)],
    ),
    (
        "multi_frame_jpeg_camelyon_challenge_image.dcm",
        {"vendor": "dicom", "mpp": Mpp(28.969, 28.968), "associated": ()},
        [(1152, 700, 1)],
    ),
    ("small.svs", {"vendor": "aperio", "mpp": Mpp(0.499, 0.499), "tile_sizes": ((16, 16),)}, [(16, 16, 1)]),
    ("boxes.tiff", {"vendor": "generic-tiff", "mpp": None}, [(300 >> i, 250 >> i, 1 << i) for i in range(4)]),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "expected", "levels"), REAL, ids=[row[0] for row in REAL])
def test_facts_of_real_slides(
    shared_data: Path, name: str, expected: dict[str, object], levels: list[tuple[int, int, int]]
) -> None:
    """Scanners' own files: their levels, resolution and tiles; and every level can be read to its far corner."""
    slide = open_slide(shared_data / "slides" / name)
    assert {key: getattr(slide.facts, key) for key in expected} == expected
    assert [(level.width, level.height, level.scale_x) for level in slide.facts.levels] == levels
    assert slide.facts.levels[0].width * slide.facts.levels[0].height == slide.facts.bounds.area
    for i, level in enumerate(slide.facts.levels):
        assert slide.read_level(i, Box(level.width - 1, level.height - 1, 1, 1)).shape == (1, 1, 3)


@pytest.mark.realdata
def test_a_resolution_from_a_print_tag_is_refused(shared_data: Path) -> None:
    """72 dpi is 352.8 µm/px: implausible, with the remedy; the remedy works."""
    path = shared_data / "slides/boxes.tiff"
    with pytest.raises(SlideError, match=r"implausible resolution 352\.8 x 352\.8.*--mpp"):
        open_slide(path).facts.require_mpp()
    assert open_slide(path, mpp=0.5).facts.require_mpp() == Mpp(0.5, 0.5)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "message"),
    [("broken.svs", "not a whole-slide image"), ("unopenable.tiff", "Unsupported TIFF compression")],
)
def test_broken_slides_are_refused_when_opened(shared_data: Path, name: str, message: str) -> None:
    """Files that nothing can be made of say so at once."""
    with pytest.raises(SlideError, match=message):
        open_slide(shared_data / "slides/broken" / name)


@pytest.mark.realdata
def test_a_slide_that_opens_but_cannot_be_read(shared_data: Path) -> None:
    """A damaged slide whose header is whole opens, and every read of it is a clear error."""
    slide = open_slide(shared_data / "slides/broken/unreadable.svs")
    for _ in range(2):
        with pytest.raises(SlideError, match="the file is damaged"):
            slide.read_level(0, Box(0, 0, 16, 16))
