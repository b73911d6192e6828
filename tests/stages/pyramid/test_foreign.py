"""OME-Zarr images that others wrote are slides like any other; what cannot be right is refused in a line."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from images import FOREIGN, change_attributes, shrunk, write_image
from makers import measured_reads, tissue_pixels
from numpy.typing import NDArray

from pipeline.info import describe
from stages.geometry import Box, Mpp, Raster, patch_rasters
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.render import count_reads

IMAGE = tissue_pixels(1003, 801, margin=0)
PALE = np.full((60, 80, 3), 200, np.uint8)


@pytest.fixture(scope="module", params=FOREIGN)
def foreign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A layout that is about, and an image in it."""
    folder = tmp_path_factory.mktemp("foreign") / "a #1.ome.zarr"
    return request.param, write_image(folder, IMAGE, **FOREIGN[request.param])


def test_pixels_scale_and_places_are_the_images(foreign: tuple[str, Path]) -> None:
    """Every level whole and in parts, at its true scale, from its corner."""
    name, path = foreign
    slide = open_pyramid(path)
    unknown = name in ("bioformats2raw 0.2", "0.3")
    assert slide.facts.mpp == (None if unknown else Mpp(0.5, 0.5))
    assert ("does not say its resolution" in str(slide.facts.mpp_problem)) == unknown
    places = [(level.x, level.y, level.scale_x, level.scale_y) for level in slide.facts.levels]
    assert places == [(0, 0, factor, factor) for factor in (1, 2, 4)]
    for i, factor in enumerate((1, 2, 4)):
        whole = IMAGE if factor == 1 else shrunk(IMAGE, factor)
        height, width = whole.shape[:2]
        np.testing.assert_array_equal(slide.read_level(i, Box(0, 0, width, height)), whole)
        boxes = [Box(width // 3, height // 4, 90, 70), Box(width - 7, height - 5, 7, 5)]
        for box, found in zip(boxes, slide.read_boxes(i, boxes), strict=True):
            np.testing.assert_array_equal(found, whole[box.y :, box.x :][: box.height, : box.width])
    assert slide.facts.warnings == ()


def test_its_bytes_are_those_of_its_chunks(foreign: tuple[str, Path]) -> None:
    """All files but for metadata, and for the indices of shards; nothing is opened for pixels."""
    name, path = foreign
    facts = (slide := open_pyramid(path)).facts
    stored = sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and "z" not in p.name and p.suffix != ".xml")
    assert facts.file_bytes == stored
    counted = sum(int(slide.tile_bytes(i).sum()) for i in range(len(facts.levels)))
    shards = sum(len(list(path.glob(f"{i}/c/**/[0-9]*/[0-9]*"))) for i in range(3)) if name == "shards" else 0
    assert counted <= stored <= counted + shards * 1000
    for level, tile, i in zip(facts.levels, facts.tile_sizes, range(3), strict=True):
        assert slide.tile_bytes(i).shape == (-(-level.height // tile[1]), -(-level.width // tile[0]))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count a process's reads")
def test_only_the_chunks_that_are_wanted_are_read(tmp_path: Path) -> None:
    """Planar chunks, and shards, whose indices come on top."""
    centres = np.random.default_rng(2).uniform((150, 150), (850, 650), (6, 2))
    patches = patch_rasters(centres, Mpp(0.5, 0.5), 64, 0.5)
    paths = [write_image(tmp_path / f"{name}.zarr", IMAGE, **FOREIGN[name]) for name in ("bioformats2raw", "shards")]
    for path, (counted, read) in zip(paths, measured_reads([(path, patches) for path in paths]), strict=True):
        touched = count_reads(open_pyramid(path), patches).tiles
        assert counted <= read <= counted + touched * 3 * 2000


@pytest.mark.parametrize("what", ["turned", "moved", "flat"])
def test_a_level_that_shows_another_picture_is_left_out(tmp_path: Path, what: str) -> None:
    path = write_image(tmp_path / "a.zarr", IMAGE)
    level = zarr.open_array(path / "1", mode="r+")
    picture = level[:]
    level[:] = {
        "turned": np.rot90(picture, 2, (1, 2)),
        "moved": np.roll(picture, 90, 2),
        "flat": np.full_like(picture, 130),
    }[what]
    facts = open_pyramid(path).facts
    assert [level.scale_x for level in facts.levels] == [1, 4]
    assert len(facts.tile_sizes) == 2
    assert any(line.startswith("level 1 (") and "is left out" in line for line in facts.warnings)


def test_it_is_read_by_threads_and_in_another_process(tmp_path: Path) -> None:
    """What travels is small, and what was read before does not matter."""
    path = write_image(tmp_path / "a.zarr", IMAGE, **FOREIGN["bioformats2raw"])
    slide, box = open_pyramid(path), Box(200, 100, 300, 200)
    pixels = slide.read_level(0, box)
    assert len(pickle.dumps(slide)) < 6000
    with ThreadPoolExecutor(4) as pool:
        tries = list(pool.map(lambda _: slide.read_level(0, box), range(4)))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        tries.append(pool.submit(slide.read_level, 0, box).result(timeout=60))
    for there in tries:
        np.testing.assert_array_equal(there, pixels)


def test_a_pyramid_of_it_has_its_pixels(tmp_path: Path) -> None:
    """Worth it for chunks that are tiny or whole planes; the fingerprint is the image's."""
    image = open_pyramid(write_image(tmp_path / "a.zarr", IMAGE, factors=(1,), chunk=33))
    pyramid = open_pyramid(cache_pyramid(image, tmp_path / "b.ome.zarr", everything=True))
    np.testing.assert_array_equal(pyramid.read_level(0, Box(0, 0, 1003, 801)), IMAGE)
    assert pyramid.facts.fingerprint == image.facts.fingerprint
    assert pyramid.facts.mpp == Mpp(0.5, 0.5)


def test_the_fingerprint_is_of_what_it_holds(tmp_path: Path) -> None:
    """Another place or time changes nothing; one pixel does."""
    first = open_pyramid(write_image(tmp_path / "a.zarr", IMAGE)).facts
    moved = open_pyramid(shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")).facts
    changed = IMAGE.copy()
    changed[5, 5] = 255 - changed[5, 5]
    other = open_pyramid(write_image(tmp_path / "c.zarr", changed)).facts
    assert first.fingerprint == moved.fingerprint != other.fingerprint


def test_a_resolution_that_is_told_replaces_the_files(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", PALE, unit=None)
    problem = "gives its pixels a size of 0.5 without a unit: give the true value with --mpp"
    with pytest.raises(SlideError, match=problem):
        open_pyramid(path).facts.require_mpp()
    assert open_pyramid(path, mpp=0.25).facts.require_mpp() == Mpp(0.25, 0.25)


def test_the_first_versions_state_their_resolution_beside_the_image(tmp_path: Path) -> None:
    """In bioformats2raw's OME-XML, which has it for each series, and the objective, which may contradict it."""
    path = write_image(tmp_path / "a.zarr", PALE, **FOREIGN["bioformats2raw 0.2"])
    (path / "OME").mkdir()
    (path / "OME" / "METADATA.ome.xml").write_text(
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument ID="I"><Objective ID="O" '
        'NominalMagnification="2.5"/></Instrument><Image ID="Image:0"><ObjectiveSettings ID="O"/><Pixels ID="Pixels:0" '
        'PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.26"/></Image></OME>',
        encoding="utf-8",
    )
    facts = open_pyramid(path).facts
    assert facts.mpp == Mpp(0.25, 0.26)
    assert "0.25 x 0.26 µm/px contradicts an objective of 2.5x, about 4 µm/px: give" in str(facts.mpp_doubt)
    assert open_pyramid(path, mpp=4).facts.mpp_doubt is None


def test_of_several_images_the_slide_is_read_or_one_must_be_named(tmp_path: Path) -> None:
    """A scan comes with its label; two scans of one size are two slides."""
    path = write_image(tmp_path / "a.zarr", IMAGE, version="0.4", inside="0")
    write_image(path, PALE, version="0.4", inside="1")
    slide = open_pyramid(path)
    assert slide.facts.levels[0].width == 1003
    assert slide.facts.warnings[0] == "of its 2 pictures the largest is read, 0; not 1 (80 x 60 px)"
    write_image(path, IMAGE[:700], version="0.4", inside="2")
    with pytest.raises(
        SlideError, match=r"several pictures of like size: 0 \(1003 x 801 px\), .*name one, as a\.zarr/0"
    ):
        open_pyramid(path)
    assert open_pyramid(path / "1").facts.levels[0].width == 80


@pytest.mark.parametrize(
    ("pixels", "said", "why"),
    [
        (np.zeros((60, 80, 5), np.uint8), {}, r"it has 5 channels \(number 1, .* that are not red, green and blue"),
        (np.zeros((60, 80, 2), np.uint8), {}, r"it has 2 channels"),
        (np.zeros((60, 80, 4), np.uint8), {}, r"it has 4 channels"),
        (PALE.astype(np.uint16), {}, r"its samples are uint16, and RGB of 8 bits is read"),
        (PALE.astype(np.float32), {}, r"its samples are float32"),
        (PALE, {"axes": "scyx", "lengths": {"s": 4}}, r"it has 4 places along an axis 's'"),
        (
            PALE,
            {"omero": [("DAPI", "FF0000"), ("FITC", "00FF00"), ("Cy3", "0000FF")]},
            r"it has 3 channels \(DAPI, FITC, Cy3\) that are not red, green and blue: fluorescence",
        ),
        (
            PALE,
            {"omero": [("", "FF00FF"), ("", "00FF00"), ("", "0000FF")]},
            r"3 channels \(#ff00ff, #00ff00, #0000ff\)",
        ),
        (PALE, {"image-label": {}, "version": "0.4"}, r"a label image"),
        (PALE, {"multiscales": [{}], "version": "0.4"}, r"its OME-Zarr metadata makes no sense"),
    ],
)
def test_what_is_no_rgb_of_8_bits_is_refused_by_name(
    tmp_path: Path, pixels: NDArray[Any], said: dict[str, Any], why: str
) -> None:
    with pytest.raises(SlideError, match=why):
        open_pyramid(write_image(tmp_path / "a.zarr", pixels, **{"factors": (1,), **said}))


@pytest.mark.parametrize(
    ("count", "omero", "colours", "warned"),
    [
        (3, [("", "FFFFFF")] * 3, (0, 1, 2), ()),
        (3, [("Channel 0", "#FF0000"), ("Channel 1", "#00FF00FF"), ("Channel 2", "#0000FF")], (0, 1, 2), ()),
        (3, [("B", "808080"), ("G", "808080"), ("R", "808080")], (2, 1, 0), ()),
        (
            *(5, [("alpha", ""), ("red", ""), ("dirt", ""), ("green", ""), ("blue", "")], (1, 3, 4)),
            ("of its 5 channels red, green and blue are read",),
        ),
        (1, [], (0, 0, 0), ()),
    ],
)
@pytest.mark.parametrize("planar", [True, False])
def test_red_green_and_blue_are_read_wherever_they_are(
    tmp_path: Path, planar: bool, count: int, omero: list[tuple[str, str]], colours: tuple[int, ...], warned: tuple[str]
) -> None:
    """Also where each is a chunk; what was chosen is said, and what was not read costs nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, count), np.uint8)
    slide = open_pyramid(write_image(tmp_path / "a.zarr", pixels, factors=(1,), omero=omero, planar=planar))
    assert slide.facts.warnings == warned
    np.testing.assert_array_equal(slide.read_level(0, Box(3, 4, 10, 20)), pixels[4:24, 3:13, list(colours)])
    files = [tmp_path / f"a.zarr/0/c/{i}/0/0" for i in range(min(colours), max(colours) + 1 if planar else 1)]
    assert slide.tile_bytes(0).sum() == sum(
        file.stat().st_size for file in (files if planar else [tmp_path / "a.zarr/0/c/0/0/0"])
    )


def test_the_middle_of_focal_planes_and_the_first_point_in_time_are_read(tmp_path: Path) -> None:
    """And said; only their chunks are counted."""
    path = write_image(tmp_path / "a.zarr", PALE, axes="tzcyx", lengths={"t": 2, "z": 4}, factors=(1,), planar=True)
    array = zarr.open_group(path, mode="a")["0"]
    array[0, 2] = np.random.default_rng(0).integers(0, 256, (3, 60, 80), np.uint8)
    slide = open_pyramid(path)
    assert slide.facts.warnings == (
        "of its 2 points in time the first is read",
        "of its 4 focal planes the middle one, number 3, is read",
    )
    np.testing.assert_array_equal(slide.read_level(0, Box(0, 0, 80, 60)), np.moveaxis(array[0, 2], 0, -1))
    assert slide.tile_bytes(0).sum() == sum((path / f"0/c/0/2/{i}/0/0").stat().st_size for i in range(3))


def test_grey_needs_no_channel_axis(tmp_path: Path) -> None:
    slide = open_pyramid(write_image(tmp_path / "a.zarr", PALE[..., :1], axes="yx"))
    assert (slide.read_level(1, Box(3, 4, 10, 10)) == 200).all()


def test_damage_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    """A chunk cut short, one that is gone, all gone, an array without its metadata, and metadata cut short."""
    path = write_image(tmp_path / "a.zarr", IMAGE, factors=(1, 2))
    slide = open_pyramid(path)
    chunk = path / "0/c/0/1/1"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(SlideError, match=r"cannot read level 0 .* at \(300, 300\): tile \(1, 1\) cannot be read: "):
        slide.read_level(0, Box(300, 300, 9, 9))
    chunk.unlink()
    assert open_pyramid(path).facts.warnings[0] == "level 0 lacks 1 of 20 chunks: what they hold is read as 0"
    shutil.rmtree(path / "0/c")
    with pytest.raises(SlideError, match="level 0 has none of its chunks: copy the folder again"):
        open_pyramid(path)
    (path / "1/zarr.json").unlink()
    with pytest.raises(SlideError, match="its level 1 is not there: copy the folder again"):
        open_pyramid(path)
    (path / "zarr.json").write_text((path / "zarr.json").read_text()[:80])
    with pytest.raises(SlideError, match=r"its zarr\.json is damaged"):
        open_pyramid(path)


def test_an_image_that_is_removed_or_written_again_is_not_read_on(tmp_path: Path) -> None:
    """Zarr takes chunks that are not there for ones of the fill value."""
    path = write_image(tmp_path / "a.zarr", PALE, factors=(1,))
    slide = open_pyramid(path)
    assert slide.read_level(0, Box(0, 0, 9, 9)).min() == 200
    shutil.rmtree(path / "0")
    with pytest.raises(SlideError, match=r"^it was removed while it was read: restore it$"):
        slide.read_level(0, Box(0, 0, 9, 9))
    write_image(tmp_path / "b.zarr", PALE // 2, factors=(1,))
    shutil.copytree(tmp_path / "b.zarr" / "0", path / "0")
    with pytest.raises(SlideError, match="it was changed or replaced while it was read"):
        slide.read_level(0, Box(0, 0, 9, 9))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("zarr_format", "zarr\xff_format", "the metadata of its level 0 are damaged .*: copy the folder again"),
        ('"shape": [', '"shape" [', "the metadata of its level 0 are damaged .*: copy the folder again"),
        ("480", "0", "damaged.*: copy the folder again"),
    ],
    ids=["no text", "no JSON", "shards of nothing"],
)
def test_damaged_metadata_are_not_taken_for_another_codec(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = write_image(tmp_path / "a.zarr", PALE, factors=(1,), shard=480)
    said = path / "0/zarr.json"
    assert old in said.read_text()
    said.write_bytes(said.read_text().replace(old, new).encode("latin-1"))
    with pytest.raises(SlideError, match=words):
        open_pyramid(path)


def test_what_zarr_cannot_decode_is_named(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", PALE)
    change_attributes(path / "0", '"zstd"', '"imagecodecs_jpeg2k"')
    with pytest.raises(
        SlideError,
        match=r"its level 0 cannot be opened by zarr \(.*imagecodecs_jpeg2k.*write it with codecs that zarr has",
    ):
        open_pyramid(path)


def test_chunks_that_must_be_decoded_whole_are_named_or_refused(tmp_path: Path) -> None:
    """Whole planes, as some write them by default; nothing is read for it."""
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
    axes = [{"name": n, "type": k} for n, k in (("c", "channel"), ("y", "space"), ("x", "space"))]
    for side, name in ((4000, "0"), (9000, "1")):
        group.create_array(name, shape=(3, side, side), chunks=(3, side, side), dtype="uint8")
        (tmp_path / "a.zarr" / name / "c/0/0").mkdir(parents=True)
        (tmp_path / "a.zarr" / name / "c/0/0/0").touch()
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": name}]}]}
        if name == "0":
            slow = "tiles of 4000 x 4000 px, each of which is decoded whole"
            assert any(slow in warning for warning in describe(tmp_path / "a.zarr")["warnings"])
        else:
            with pytest.raises(SlideError, match=r"chunks of 9000 x 9000 pixels.* write it again in chunks of 256"):
                open_pyramid(tmp_path / "a.zarr")


def test_the_proposed_jpeg_is_read(tmp_path: Path) -> None:
    """Streams that say that they are YCbCr, in chunks of height, width and colour."""
    import imagecodecs

    path = write_image(tmp_path / "a.zarr", PALE, axes="yxc", factors=(1,), compressors=None)
    plain = '{"name": "bytes"}'
    configuration = '{"quality": 90, "encoded_color_space": "ycbcr"}'
    change_attributes(path / "0", plain, f'{{"name": "jpeg", "configuration": {configuration}}}')
    (path / "0/c/0/0/0").write_bytes(imagecodecs.jpeg8_encode(PALE, level=95))
    pixels = open_pyramid(path).read_level(0, Box(0, 0, 80, 60))
    assert np.abs(pixels.astype(int) - 200).max() <= 2


def test_a_raster_of_it_is_rendered(tmp_path: Path) -> None:
    """Counting what a patch costs goes by its own chunks."""
    slide = open_pyramid(write_image(tmp_path / "a.zarr", IMAGE))
    assert count_reads(slide, [Raster(30, 30, 1, 1, 300, 100)]).bytes == slide.tile_bytes(0)[0, :2].sum()
