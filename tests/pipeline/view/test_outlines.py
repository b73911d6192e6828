"""Outlines lie where QuPath drew them; what is no GeoJSON is told in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.view.outlines import read_outlines

SQUARE = [[0, 0], [10, 0], [10, 5], [0, 0]]


def written(path: Path, told: Any) -> Path:
    path.write_text(told if isinstance(told, str) else json.dumps(told))
    return path


def feature(kind: str, coordinates: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}}


def test_rings_of_polygons_are_moved_to_level_0(tmp_path: Path) -> None:
    hole = [[2, 1], [3, 1], [3, 2], [2, 1]]
    told = [feature("Polygon", [SQUARE, hole]), feature("MultiPolygon", [[SQUARE], [hole]]), feature("Point", [1, 2])]
    path = written(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": told})
    rings = read_outlines(path, (100, 20))
    assert len(rings) == 4
    assert rings[0] == [(100, 20), (110, 20), (110, 25), (100, 20)]
    assert rings[3][1] == (103, 21)
    ours = {"type": "FeatureCollection", "saccade": {"origin_level0": [7, 8]}, "features": told}
    assert read_outlines(written(path, ours), (100, 20))[0][0] == (7, 8), "one of ours says what it counts from"
    assert read_outlines(written(path, told), (0, 0))[0][2] == (10, 5), "QuPath writes bare lists, too"


def test_there_need_not_be_any(tmp_path: Path) -> None:
    assert read_outlines(tmp_path / "none.geojson", (0, 0)) == []
    assert read_outlines(written(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": []}), (0, 0)) == []


@pytest.mark.parametrize(
    "told",
    [
        "",
        "{",
        "3",
        '{"type": "Polygon"}',
        '{"type": "Polygon", "coordinates": [[1, 2]]}',
        "null",
        '{"a": 1}',
        "[" * 10_000,
    ],
)
def test_what_is_no_geojson_is_one_line(tmp_path: Path, told: str) -> None:
    path = written(tmp_path / "a.geojson", told)
    with pytest.raises(UsageError, match="export the outlines again") as error:
        read_outlines(path, (0, 0))
    assert str(error.value).count("\n") == 0
    assert str(path) in str(error.value)
