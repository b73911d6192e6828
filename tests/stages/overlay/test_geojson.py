"""QuPath's objects: patches and regions of high attention."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from stages.geometry import Raster
from stages.overlay.geojson import geojson


def test_geojson_is_what_qupath_reads() -> None:
    attention = np.array([[0.4, 0.4, 0.0, 0.02], [0.0, 0.0, 0.0, 0.14], [0.02, 0.02, 0.0, 0.0]])  # 6 cells with any
    cells = Raster(100.0, 50.0, 64.0, 32.0, 4, 3)
    boxes = [[110.0, 60.0, 40.0, 20.0], [300.0, 90.0, 40.0, 20.0]]
    said = {"tumour": ([0.5, -2.0], [np.inf, 0.25])}
    found = geojson(
        attention, cells, boxes, attention_at=[0.4, 0.14], weights=[1.25, 0.5], origin=(100, 50), contributions=said
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"type", "features", "saccade"}  # no CRS
    assert found["saccade"] == {"frame": "level-0 pixels minus origin_level0", "origin_level0": [100, 50]}
    assert found["type"] == "FeatureCollection"
    for feature in found["features"]:
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        properties = feature["properties"]
        assert set(properties) == {"objectType", "name", "classification", "isLocked", "measurements"}
        assert properties["isLocked"] is True
        assert isinstance(properties["classification"]["name"], str)
        assert [0 <= c <= 255 for c in properties["classification"]["color"]] == [True] * 3
        assert all(type(v) is float for v in properties["measurements"].values())
    region, *patches = found["features"]
    assert region["properties"]["objectType"] == "annotation"
    assert region["geometry"]["coordinates"] == [[[0, 0], [128, 0], [128, 32], [0, 32], [0, 0]]]
    assert region["properties"]["measurements"]["attention"] == pytest.approx(0.8)
    assert region["properties"]["measurements"]["mean attention, times uniform"] == pytest.approx(2.4)
    higher = geojson(attention, cells, [], attention_at=[], weights=[], origin=(100, 50), region_multiple=2.5)
    assert higher["features"] == []
    assert [p["properties"]["objectType"] for p in patches] == ["detection"] * 2
    assert patches[1]["geometry"]["coordinates"] == [[[200, 40], [240, 40], [240, 60], [200, 60], [200, 40]]]
    assert patches[1]["properties"]["measurements"] == {
        "attention": pytest.approx(0.14),
        "attention, times uniform": pytest.approx(0.84),
        "weight": 0.5,
        "order": 2.0,
        "contribution to tumour, log-odds": -2.0,
        "contribution to tumour, low": -2.25,
        "contribution to tumour, high": -1.75,
    }
    assert {name for name in patches[0]["properties"]["measurements"] if "tumour" in name} == {
        "contribution to tumour, log-odds"  # of what is left open altogether
    }


def test_geojson_of_numbers_that_are_none_is_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        geojson(np.array([[np.nan]]), Raster(0, 0, 8, 8, 1, 1), [], attention_at=[], weights=[], origin=(0, 0))


def test_geojson_needs_no_matplotlib() -> None:
    code = "import sys, stages.overlay.geojson; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
