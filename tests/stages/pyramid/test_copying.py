"""Levels that a slide lacks are the means of its own, made in the same pass, whatever interrupts it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import start_caching, tissue_pixels, write_slide
from numpy.typing import NDArray

import stages.pyramid.layout
import stages.slide.jpeg
from stages.geometry import Box
from stages.pyramid.cache import cache_pyramid, verify_pyramid
from stages.pyramid.copying import averaged
from stages.pyramid.open import open_pyramid
from stages.pyramid.plan import STEP, Wish
from stages.slide.files import open_slide
from stages.slide.jpeg_parts import Parts


def means(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`averaged`, one square at a time."""
    rows, columns = (range(0, side, STEP) for side in pixels.shape[:2])
    squares = [[pixels[y : y + STEP, x : x + STEP].mean((0, 1)) for x in columns] for y in rows]
    return np.rint(np.array(squares)).astype(np.uint8)


@given(st.integers(1, 13), st.integers(1, 13), st.integers(0, 2**32 - 1), st.sampled_from([2, 256]))
def test_averages_are_exact_means(height: int, width: int, seed: int, colours: int) -> None:
    """Of every square, also where the edge cuts it; halves go to the even value."""
    pixels = np.random.default_rng(seed).integers(0, colours, (height, width, 3)).astype(np.uint8)
    np.testing.assert_array_equal(averaged(pixels), means(pixels))


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A slide of one level that needs two more where shards are small; its sides divide by nothing."""
    return write_slide(tmp_path / "flat.tif", tissue_pixels(2501, 1803, margin=0.05), levels=1, tile=128)


def test_missing_levels_are_means_of_means(flat: Path, tmp_path: Path, small_shards: None) -> None:
    """Each of the level before, shard borders and edges included."""
    slide = open_slide(flat)
    pyramid = open_pyramid(cache_pyramid(slide, tmp_path / "a.ome.zarr", profile="portable", everything=True))
    wanted = slide.read_level(0, Box(0, 0, 2501, 1803))
    sizes = []
    for i, level in enumerate(pyramid.facts.levels):
        np.testing.assert_array_equal(pyramid.read_level(i, Box(0, 0, level.width, level.height)), wanted)
        wanted = means(wanted)
        sizes.append((level.width, level.height))
    assert sizes == [(2501, 1803), (626, 451), (157, 113)]


def test_levels_are_added_between_distant_ones(tmp_path: Path) -> None:
    """A slide whose next level is 16 times coarser gets the one between; its own stay as they are."""
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(1600, 1600), levels=2, factor=16))
    pyramid = open_pyramid(cache_pyramid(slide, tmp_path / "a.ome.zarr", profile="portable", everything=True))
    assert [level.scale_x for level in pyramid.facts.levels] == [1, 4, 16]
    whole = slide.read_level(0, Box(0, 0, 1600, 1600))
    np.testing.assert_array_equal(pyramid.read_level(1, Box(0, 0, 400, 400)), means(whole))
    np.testing.assert_array_equal(pyramid.read_level(2, Box(0, 0, 100, 100)), slide.read_level(1, Box(0, 0, 100, 100)))


@pytest.mark.parametrize(("tile", "shard"), [(128, 512), (1040, 1536), (96, 1536)])
def test_each_tile_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile: int, shard: int) -> None:
    """Although levels are made from it; also where it is larger or smaller than a chunk, within a shard."""
    monkeypatch.setattr(stages.pyramid.layout, "SHARD_SIDE", shard)
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(1301, 1203), levels=1, tile=tile))
    slide.read_level(0, Box(0, 0, 10, 10))  # opened and compared with OpenSlide
    decode, together, calls = stages.slide.jpeg.decode, Parts.decode, list[int]()

    def noted(self: Parts, *asked: Any) -> list[bool]:
        done = together(self, *asked)
        calls.extend([1] * sum(done))
        return done

    monkeypatch.setattr(stages.slide.jpeg, "decode", lambda *args, **more: (calls.append(1), decode(*args, **more))[1])
    monkeypatch.setattr(Parts, "decode", noted)
    slide.read_level(0, Box(0, 0, 10, 10))
    assert len(calls) == 1
    calls.clear()
    cache_pyramid(slide, tmp_path / "b.ome.zarr", profile="portable", everything=True)
    tiles = slide.tile_bytes(0).size
    assert tiles <= len(calls) <= tiles + 3  # the slide is opened anew, and some tiles compared with OpenSlide


@pytest.mark.parametrize("stop_after", [1, 5, 9, 19, 20, 21])
def test_a_killed_run_is_resumed_to_the_same_files(
    flat: Path, tmp_path: Path, small_shards: None, stop_after: int
) -> None:
    """Wherever it was killed: byte for byte what an undisturbed run writes."""
    slide = open_slide(flat)
    assert -(-2501 // 512) * -(-1803 // 512) == 20
    undisturbed = cache_pyramid(slide, tmp_path / "whole" / "a.ome.zarr", profile="portable", everything=False)
    out = tmp_path / "a.ome.zarr"
    killed = start_caching(flat, out, profile="portable", stop_after=stop_after)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    cache_pyramid(slide, out, profile="portable")
    assert contents(out) == contents(undisturbed)


def test_shards_that_are_damaged_in_a_partial_pyramid_are_not_trusted(
    flat: Path, tmp_path: Path, small_shards: None
) -> None:
    """Gone, cut, or with a flipped bit inside, on a level that is copied and on those that are made."""
    slide = open_slide(flat)
    profiles: tuple[Wish, ...] = ("native", "portable")
    for profile in profiles:
        whole = contents(cache_pyramid(slide, tmp_path / "whole" / profile, profile=profile))
        out = tmp_path / profile
        killed = start_caching(flat, out, profile=profile, stop_after=20)
        killed.communicate(timeout=60)
        (partial,) = tmp_path.glob(f".saccade-{profile}.*")
        shards = sorted(path for path in partial.rglob("c/0/*/*"))
        assert len(shards) >= 20
        for number, path in enumerate(shards):
            data = bytearray(path.read_bytes())
            if number % 4 == 0:
                path.unlink()
            elif number % 4 == 1:
                path.write_bytes(data[:-1])
            elif number % 4 == 2:
                data[len(data) // 3] ^= 1
                path.write_bytes(data)
        cache_pyramid(slide, out, profile=profile)
        assert contents(out) == whole
        assert verify_pyramid(out) == []


def contents(pyramid: Path) -> dict[str, bytes]:
    """Every file by its place."""
    return {str(path.relative_to(pyramid)): path.read_bytes() for path in pyramid.rglob("*") if path.is_file()}
