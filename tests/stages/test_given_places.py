"""Places that other programs gave numbers to: each cell has what lies in it, wherever files count from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import ArrayLike

from stages.geometry import Raster
from stages.given_map import MapError
from stages.given_places import places_on_cells, read_places, split_measurement

LEVEL0 = (1803, 1207)
CELLS = Raster(0.0, 0.0, 64.0, 64.0, 29, 19)
TILE = 96


def write_tiles(path: Path, coords: ArrayLike, scores: ArrayLike, **said: Any) -> Path:
    """As CLAM's create_heatmaps writes them."""
    with h5py.File(path, "w") as file:
        file["coords"] = np.asarray(coords, np.int64)
        file["attention_scores"] = np.asarray(scores, np.float32)
        file["coords"].attrs.update(said)
    return path


def write_objects(path: Path, objects: list[tuple[list[Any], Any]], *, kind: str = "Polygon", **more: Any) -> Path:
    """As QuPath exports them."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": kind, "coordinates": rings},
            "properties": {"objectType": "detection", "measurements": measured},
        }
        for rings, measured in objects
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def grid(step: int = TILE) -> np.ndarray:
    """Corners of tiles over all of the slide."""
    return np.stack(np.meshgrid(np.arange(0, 1800, step), np.arange(0, 1200, step)), -1).reshape(-1, 2)


def on_cells(path: Path, *, measurement: str = "", origin: tuple[int, int] = (0, 0), cells: Raster = CELLS) -> Any:
    return places_on_cells(read_places(path, measurement=measurement, origin=origin), level0=LEVEL0, cells=cells)


@pytest.mark.parametrize("said", [{}, {"patch_size_level0": TILE}, {"patch_size": 48, "downsample": (2.0, 2.0)}])
def test_a_lesion_in_clam_s_scores_is_where_it_is_on_the_slide(said: dict[str, Any], tmp_path: Path) -> None:
    """Tiles are as large as the file says, else as the step from one to the next."""
    corners = grid()
    lesion = (corners == (9 * TILE, 4 * TILE)).all(1)
    path = write_tiles(tmp_path / "s_blockmap.h5", corners, np.where(lesion, 0.5, 0.0)[:, None], **said)
    shares = on_cells(path)
    expected = np.zeros(CELLS.shape)
    for row in range(CELLS.height):
        for column in range(CELLS.width):
            across = max(0, min(10 * TILE, (column + 1) * 64) - max(9 * TILE, column * 64))
            down = max(0, min(5 * TILE, (row + 1) * 64) - max(4 * TILE, row * 64))
            expected[row, column] = 0.5 * across * down / 64**2
    np.testing.assert_allclose(shares, expected)


def test_scores_below_zero_are_logits(tmp_path: Path) -> None:
    """CLAM keeps attention before its softmax."""
    corners = grid()
    logits = np.random.default_rng(0).normal(size=len(corners)) * 3
    found = on_cells(write_tiles(tmp_path / "a.h5", corners, logits))
    shares = on_cells(write_tiles(tmp_path / "b.h5", corners, np.exp(logits)))
    np.testing.assert_allclose(found / found.sum(), shares / shares.sum(), rtol=1e-5)


def test_qupath_s_objects_are_counted_from_the_bounds(tmp_path: Path) -> None:
    """Its own files by the slide's origin, ours by what they say themselves; ones of several parts have each."""
    objects = [([square(512 - 100, 256 - 30, 64)], {"tumour": 2.0})]
    theirs = on_cells(write_objects(tmp_path / "a.geojson", objects), origin=(100, 30))
    ours = write_objects(tmp_path / "b.geojson", objects, saccade={"origin_level0": [100, 30]})
    several = write_objects(tmp_path / "c.geojson", [([[square(512, 256, 64)]], {"tumour": 2.0})], kind="MultiPolygon")
    old = write_objects(tmp_path / "d.geojson", [([square(512, 256, 64)], [{"name": "tumour", "value": 2.0}])])
    expected = np.zeros(CELLS.shape)
    expected[4, 8] = 2
    for shares in (theirs, on_cells(ours), on_cells(several), on_cells(old)):
        np.testing.assert_allclose(shares, expected)


def test_an_object_smaller_than_a_step_is_there(tmp_path: Path) -> None:
    path = write_objects(tmp_path / "a.geojson", [([square(700, 500, 3)], {"x": 1.0})])
    [(row, column)] = np.argwhere(on_cells(path))
    assert (row, column) == (500 // 64, 700 // 64)


def test_of_several_measurements_one_is_named(tmp_path: Path) -> None:
    objects = [([square(0, 0, 64)], {"a": 1.0, "b": 3.0}), ([square(64, 0, 64)], {"b": 5.0})]
    path = write_objects(tmp_path / "s.geojson", objects)
    np.testing.assert_allclose(on_cells(path, measurement="a")[0, :3], [1, 0, 0])
    np.testing.assert_allclose(on_cells(path, measurement="b")[0, :3], [3, 5, 0])
    with pytest.raises(MapError, match="have the measurements 'a', 'b': say which one by #NAME after the folder"):
        on_cells(path)
    with pytest.raises(MapError, match="has the measurement 'c'; they have 'a', 'b'"):
        on_cells(path, measurement="c")


def test_a_measurement_is_named_behind_the_folder(tmp_path: Path) -> None:
    (tmp_path / "with#sign").mkdir()
    assert split_measurement(tmp_path) == (tmp_path, "")
    assert split_measurement(Path(f"{tmp_path}#attention, times uniform")) == (tmp_path, "attention, times uniform")
    assert split_measurement(tmp_path / "with#sign") == (tmp_path / "with#sign", "")
    assert split_measurement(Path(f"{tmp_path}/gone#x")) == (Path(f"{tmp_path}/gone#x"), "")


@pytest.mark.parametrize(
    ("coords", "scores", "said"),
    [
        (grid() * 2, np.ones(len(grid())), r"reach from \(0, 0\) to \(3648, 2496\), the slide is of 1803 x 1207"),
        (grid(), np.ones((len(grid()), 2)), r"expected \(N, 2\) and a score each"),
        (grid(), np.full(len(grid()), np.nan), "247 values that are negative or not finite, the first nan"),
        ([[0, 0]], [1.0], "nothing says how large a tile is, and no two are neighbours"),
    ],
)
def test_scores_of_another_frame_are_refused(coords: Any, scores: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(MapError, match=said):
        on_cells(write_tiles(tmp_path / "s.h5", coords, scores))


def test_what_is_no_such_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "bag.h5", "w") as file:
        file["coords"], file["features"] = np.zeros((3, 2)), np.zeros((3, 4))
    (tmp_path / "text.h5").write_text("text")
    (tmp_path / "list.geojson").write_text("[3]")
    (tmp_path / "torn.geojson").write_text('{"features": [')
    write_objects(tmp_path / "negative.geojson", [([square(0, 0, 64)], {"a": -1.0})])
    for name, said in {
        "bag.h5": "has coords, features, expected coords and attention_scores",
        "text.h5": "cannot read .* as HDF5",
        "list.geojson": "cannot read .* as QuPath's GeoJSON",
        "torn.geojson": "cannot read .* as QuPath's GeoJSON",
        "negative.geojson": "1 values that are negative or not finite, the first -1",
    }.items():
        with pytest.raises(MapError, match=said) as refused:
            on_cells(tmp_path / name)
        assert "\n" not in str(refused.value)
