"""SpatialData opens what is written, and finds it where it is, in pixels and in µm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # many, of its own dependencies

SPOT = (6, 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    spatialdata = _spatialdata()
    from stages.exports.spatial import write_spatialdata

    folder = tmp_path_factory.mktemp("spatial") / "s.zarr"
    folder.mkdir()
    multiple, raster, mpp = _slide()
    write_spatialdata(
        folder,
        {"attention, times uniform": multiple, "evidence for a/b, log-odds": multiple - 1},
        raster,
        np.array([(1109.2, 1086.6, 128, 128), (3000, 500, 128, 64)]),
        mpp=mpp,
        multiple=multiple,
        told=np.ones(raster.shape, np.uint8),
        patch_cells=[SPOT[0] * 33 + SPOT[1], 9],
        measurements={
            "attention": [0.5, 0.25],
            "contribution to a/b": [np.nan, 1.5],
            "contribution to A b": [7, 8],
            "contribution to Gewächs": [9, 10],
        },
        features=np.arange(10.0).reshape(2, 5),
        thumbnail=(np.full((40, 50, 3), 7, np.uint8), _raster(0, 0, 100, 50, 40)),
        facts={"slide": "s", "mpp": [0.5, 0.25], "prediction": {"predicted": "a/b", "prob_a/b": "0.7"}},
    )
    return spatialdata.read_zarr(folder)


def _spatialdata() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("spatialdata", reason="needs spatialdata, of the extra of that name")


def _raster(x: float, y: float, side: float, width: int, height: int) -> Any:
    from stages.geometry import Raster

    return Raster(x, y, side, side, width, height)


def _slide() -> tuple[Any, Any, Any]:
    """Attention with a hole of no tissue and a hot cell, on cells that are no whole pixels, within bounds."""
    from stages.geometry import Mpp

    raster = _raster(600, 300, 127.3, 33, 29)
    attention = np.ones(raster.shape)
    attention[20], attention[SPOT] = 0, 40
    return attention / attention[attention > 0].mean(), raster, Mpp(0.5, 0.25)


@pytest.mark.parametrize(("system", "scale"), [("global", (1, 1)), ("micrometers", (0.5, 0.25))])
def test_elements_lie_where_they_are(store: Any, system: str, scale: tuple[float, float]) -> None:
    from spatialdata import get_extent

    raster = _slide()[1]

    def extent(element: Any) -> list[float]:
        found = get_extent(element, coordinate_system=system)
        return [found["x"][0] / scale[0], found["y"][0] / scale[1], found["x"][1] / scale[0], found["y"][1] / scale[1]]

    left, upper, right, lower = raster.extent_level0
    for element in (store.labels["cells"], store.images["maps"]):
        assert extent(element) == pytest.approx([left, upper, right, lower])
    assert extent(store.images["thumbnail"]) == pytest.approx([0, 0, 5000, 4000])
    corners = raster.to_level0([(SPOT[1], SPOT[0]), (SPOT[1] + 1, SPOT[0] + 1)]).ravel()
    assert extent(store.shapes["regions"]) == pytest.approx(list(corners))
    assert extent(store.shapes["patches"]) == pytest.approx([1109.2, 500, 3128, 1214.6])


def test_cells_and_their_table_belong_together(store: Any) -> None:
    multiple = _slide()[0]
    table = store.tables["cells_table"]
    numbers = np.asarray(store.labels["cells"])
    assert len(table) == (multiple > 0).sum() == numbers.max()
    spot = int(numbers[SPOT])
    row = table[table.obs["object"] == spot]
    assert float(row[:, "attention, times uniform"].X[0, 0]) == pytest.approx(multiple[SPOT])
    assert not numbers[20].any()
    assert (int(row.obs["row"].iloc[0]), int(row.obs["column"].iloc[0])) == SPOT
    assert table.uns["saccade"]["prediction"] == {"predicted": "a/b", "prob_a_b": "0.7"}
    assert table.uns["saccade"]["columns"]["prob_a_b"] == "prob_a/b"


def test_patches_have_what_they_say_and_their_features(store: Any) -> None:
    table = store.tables["patches_table"]
    np.testing.assert_array_equal(np.asarray(table.X), np.arange(10.0).reshape(2, 5))
    assert list(table.obs["attention"]) == [0.5, 0.25]
    np.testing.assert_array_equal(table.obs["contribution_to_a_b"], [np.nan, 1.5])
    # of two classes whose columns would be called the same neither is lost
    np.testing.assert_array_equal(table.obs["contribution_to_A_b.2"], [7, 8])
    np.testing.assert_array_equal(table.obs["contribution_to_Gewächs"], [9, 10])
    assert table.uns["saccade"]["columns"]["contribution_to_A_b.2"] == "contribution to A b"
    assert list(table.obs["object"]) == list(store.shapes["patches"].index) == [1, 2]
    assert int(table.obs["cell"].iloc[0]) == int(np.asarray(store.labels["cells"])[SPOT])


def test_without_patches_and_regions(tmp_path: Path) -> None:
    spatialdata = _spatialdata()
    from stages.exports.spatial import write_spatialdata

    _, raster, mpp = _slide()
    even = np.ones(raster.shape)
    write_spatialdata(
        tmp_path,
        {"attention": even},
        raster,
        np.zeros((0, 4)),
        mpp=mpp,
        multiple=even,
        told=None,
        patch_cells=[],
        measurements={},
        features=np.zeros((0, 5)),
        thumbnail=None,
        facts={},
    )
    found = spatialdata.read_zarr(tmp_path)
    assert not found.shapes
    assert list(found.tables) == ["cells_table"]
