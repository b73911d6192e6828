"""Maps that somebody else made: what of them lies in each cell, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from stages.geometry import Raster
from stages.given_map import MapError, edge_to_edge, find_map, in_cells, read_map


def raster(width: int, height: int, scale: float) -> Raster:
    return Raster(0, 0, scale, scale, width, height)


@pytest.mark.parametrize("suffix", ["npy", "png", "tif"])
def test_values_are_read_as_they_are(suffix: str, tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = tmp_path / f"s.{suffix}"
    {
        "npy": lambda: np.save(path, values),
        "png": lambda: Image.fromarray(values).save(path),
        "tif": lambda: tifffile.imwrite(path, values),
    }[suffix]()
    assert find_map(tmp_path, "s") == path
    np.testing.assert_array_equal(read_map(path), values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.ones((3, 4, 3)), r"values of shape \(3, 4, 3\)"),
        (np.array([[1.0, np.nan]]), r"1 values that are negative or not finite, the first nan at row 0, column 1"),
        (np.array([[1.0], [-2.0]]), r"the first -2\.0 at row 1, column 0"),
        (np.array([[np.inf, 1.0]]), r"the first inf at row 0"),
        (np.zeros((2, 2)), "0 everywhere"),
        (np.array([["a"]]), "expected numbers"),
        (np.array([{}], dtype=object), "cannot read the map"),
    ],
)
def test_what_is_no_share_of_attention_is_refused(values: np.ndarray, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", values)
    with pytest.raises(MapError, match=said):
        read_map(tmp_path / "s.npy")


def test_a_file_that_no_reader_takes_is_refused_whatever_it_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file is an EOFError to NumPy, a picture of too many pixels an error of Pillow's own."""
    (tmp_path / "s.npy").touch()
    Image.new("L", (40, 30), 5).save(tmp_path / "s.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("s.npy", "s.png"):
        with pytest.raises(MapError, match="cannot read the map"):
            read_map(tmp_path / name)


def test_a_map_that_is_not_there_or_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MapError, match=r"expected one map s\.npy, \.png, \.tif, .* in .* found none"):
        find_map(tmp_path, "s")
    for name in ("s.npy", "s.png"):
        (tmp_path / name).touch()
    with pytest.raises(MapError, match=r"found s\.npy and s\.png"):
        find_map(tmp_path, "s")


def test_a_map_of_another_aspect_is_refused_with_both() -> None:
    with pytest.raises(
        MapError, match=r"map is of 40 x 30 px, aspect 1\.333, the slide of 3000 x 4000 px, aspect 0\.75"
    ):
        edge_to_edge((30, 40), level0=(3000, 4000))
    edge_to_edge((31, 40), level0=(4000, 3000))  # a side that was rounded up


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_a_cell_has_what_lies_in_it(side: int) -> None:
    """Whatever the two grids are: compared with the same map and cells on a grid of the finest common pixels."""
    values = np.random.default_rng(side).random((3 * side, 4 * side))
    found = in_cells(values, edge_to_edge(values.shape, level0=(4200, 3150)), raster(4, 3, 1050))
    np.testing.assert_allclose(found, values.reshape(3, side, 4, side).sum((1, 3)))
    # cells that do not meet the map's pixels: each of those counts by its part
    other = in_cells(values, edge_to_edge(values.shape, level0=(4200, 3150)), raster(6, 5, 700))
    fine = np.repeat(np.repeat(values, 30, 0), 30, 1) / 900  # level 0 in steps of 35 / side
    step = 20 * side
    padded = np.pad(fine, ((0, 5 * step - 90 * side), (0, 0)))
    np.testing.assert_allclose(other, padded.reshape(5, step, 6, step).sum((1, 3)))
    assert other.sum() == pytest.approx(values.sum())
