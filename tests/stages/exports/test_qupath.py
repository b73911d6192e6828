"""A large slide's objects stay few enough to be opened; wherever cells lie, nothing of them is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import stages.exports.qupath
from stages.exports.qupath import write_qupath
from stages.geometry import Raster


def written(path: Path, attention: NDArray[Any], raster: Raster, **more: Any) -> dict[str, Any]:
    """What is written of a map, without patches unless ``more`` says them."""
    how: dict[str, Any] = {"attention_at": [], "weights": [], "patch_cells": [], "origin": (0, 0)}
    how |= {"evidence": {}, "contributions": {}, **more}
    write_qupath(path, attention, raster, how.pop("boxes", []), **how)
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


def cells(told: dict[str, Any]) -> list[tuple[list[Any], dict[str, float]]]:
    """Corners and measurements of the cells."""
    return [
        (one["geometry"]["coordinates"][0], one["properties"]["measurements"])
        for one in told["features"]
        if one["properties"]["classification"]["name"] == "Cell"
    ]


def test_a_slide_smaller_than_a_cell_has_one(tmp_path: Path) -> None:
    told = written(tmp_path / "a.geojson", np.ones((1, 1)), Raster(-8.0, -8.0, 64.0, 64.0, 1, 1))
    assert cells(told) == [
        ([[-8, -8], [56, -8], [56, 56], [-8, 56], [-8, -8]], {"attention, times uniform": pytest.approx(1)})
    ]


def test_of_more_cells_than_can_be_opened_squares_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is what it may be, their sums are the map's, and the borders are those of their cells."""
    monkeypatch.setattr(stages.exports.qupath, "MOST_CELLS", 40)
    rng = np.random.default_rng(0)
    attention = rng.random((17, 23)) * (rng.random((17, 23)) > 0.3)
    attention /= attention.sum()
    evidence = rng.normal(size=(17, 23)) * (attention > 0)
    raster = Raster(100.5, -3.25, 31.3, 33.7, 23, 17)
    more = {"evidence": {"x": evidence}, "patch_cells": [5, 5], "weights": [2.0, 1.0], "attention_at": [0.1, 0.1]}
    more |= {"boxes": [[0, 0, 9, 9]] * 2}
    told = written(tmp_path / "a.geojson", attention, raster, **more)
    found, across = cells(told), told["saccade"]["cells_across"]
    assert across == 4
    assert 0 < len(found) <= 40
    assert sum(one["evidence for x, log-odds"] for _, one in found) == pytest.approx(evidence.sum(), abs=1e-4)
    count = np.count_nonzero(attention)
    many = [np.count_nonzero(part) for part in _parts(attention, across)]
    shares = [one["attention, times uniform"] * n for (_, one), n in zip(found, filter(None, many), strict=True)]
    assert sum(shares) == pytest.approx(count, rel=1e-4)
    if attention[0, 5]:
        assert sum(one.get("weight", 0) for _, one in found) == pytest.approx(3)
    corners = np.array([ring for ring, _ in found])
    assert corners.max(axis=(0, 1)) == pytest.approx(raster.extent_level0[2:], abs=0.01)


def _parts(values: NDArray[Any], across: int) -> list[NDArray[Any]]:
    rows, columns = values.shape
    return [values[i : i + across, j : j + across] for i in range(0, rows, across) for j in range(0, columns, across)]


def test_names_of_classes_are_text_whatever_they_hold(tmp_path: Path) -> None:
    name = 'a "b"\n</script>\\ü\udcff'
    told = written(tmp_path / "a.geojson", np.ones((1, 1)), Raster(0, 0, 8, 8, 1, 1), evidence={name: np.ones((1, 1))})
    [(_, measured)] = cells(told)
    assert any(key.startswith('evidence for a "b"\n</script>\\ü') for key in measured)


def test_a_map_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a number somewhere"):
        written(tmp_path / "a", np.ones((1, 1)), Raster(0, 0, 8, 8, 1, 1), evidence={"x": np.full((1, 1), np.nan)})
