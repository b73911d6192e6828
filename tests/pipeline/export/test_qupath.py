"""Objects for QuPath lie where a slide's things lie, whatever its bounds, and say what the run found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest

from pipeline.export.export import export_run
from pipeline.output.attention_map import read_attention_zarr, read_evidence_zarr, write_attention_zarr
from pipeline.view.run_folder import open_run
from pipeline.view.samples import read_samples
from stages.geometry import Mpp

LESION = {"bounded": (1703.0, 1507.0), "odd": (1210.0, 1333.0)}
"""A point on the tissue of each slide, in OpenSlide's level-0 pixels."""


def objects(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Features of a file by their class."""
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["type"] == "FeatureCollection"
    found: dict[str, list[dict[str, Any]]] = {}
    for one in told["features"]:
        assert one["properties"]["isLocked"] is True
        found.setdefault(one["properties"]["classification"]["name"], []).append(one)
    return found


def box(one: dict[str, Any]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of an object."""
    corners = np.array(one["geometry"]["coordinates"][0])
    return (*corners.min(0), *corners.max(0))


def put_lesion(run: Path, name: str) -> None:
    """Have a slide's attention be highest in the cell that holds its lesion."""
    path = run / "slides" / name / "attention.zarr"
    attention, raster = read_attention_zarr(path)
    column, row = np.floor(raster.from_level0(LESION[name])).astype(int)
    changed = attention.copy()
    assert changed[row, column] > 0, "not on the tissue"
    changed[row, column] = 1
    write_attention_zarr(path, changed / changed.sum(), raster, mpp=Mpp(0.5, 0.5))


@pytest.mark.parametrize("name", LESION)
def test_a_lesion_lies_in_qupath_s_frame_where_it_lies_on_the_slide(run: Path, name: str) -> None:
    """QuPath counts from the corner of the bounds that the file states."""
    put_lesion(run, name)
    export_run(run, ["qupath"], only=[name])
    found = objects(run / "export" / "qupath" / f"{name}.geojson")
    path = str(next(one.row["path"] for one in open_run(run).slides if one.name == name))
    with openslide.OpenSlide(path) as slide:
        corner = [int(slide.properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy"]
    x, y = np.array(LESION[name]) - corner
    highest = max(found["Cell"], key=lambda one: one["properties"]["measurements"]["attention, times uniform"])
    regions = found["Attention at least 2 times uniform"]
    region = max(regions, key=lambda one: one["properties"]["measurements"]["highest attention, times uniform"])
    for one in (highest, region):
        left, top, right, bottom = box(one)
        assert left <= x < right
        assert top <= y < bottom
    assert np.ptp(box(highest)[::2]) == np.ptp(box(highest)[1::2]) == 64


def test_every_cell_of_tissue_has_its_numbers(ran: Path, tmp_path: Path) -> None:
    export_run(ran, ["qupath"], out=tmp_path, only=["odd"])
    cells = objects(tmp_path / "qupath" / "odd.geojson")["Cell"]
    attention, raster = read_attention_zarr(ran / "slides" / "odd" / "attention.zarr")
    evidence, _, _ = read_evidence_zarr(ran / "slides" / "odd" / "evidence.zarr")
    samples = read_samples(ran / "slides" / "odd" / "samples.h5")
    assert len(cells) == np.count_nonzero(attention)
    for one in cells:
        left, top, right, bottom = box(one)
        column, row = np.floor(raster.from_level0(((left + right) / 2, (top + bottom) / 2))).astype(int)
        told = one["properties"]["measurements"]
        share = attention[row, column] * np.count_nonzero(attention)
        assert told["attention, times uniform"] == pytest.approx(share, rel=1e-5)
        assert told["evidence for tumour, log-odds"] == pytest.approx(evidence[1, row, column], rel=1e-5, abs=1e-9)
        assert "evidence for normal, log-odds" not in told  # which mirrors it
    weights = [one["properties"]["measurements"].get("weight", 0.0) for one in cells]
    assert sum(weights) == pytest.approx(samples.weights.sum(), rel=1e-4)
    assert 0 < np.count_nonzero(weights) <= len(samples.weights)


def test_what_an_earlier_version_did_not_tell_is_not_there(old: Path) -> None:
    export_run(old, ["qupath"])
    told = objects(old / "export" / "qupath" / "a.geojson")
    assert set(told["Cell"][0]["properties"]["measurements"]) == {"attention, times uniform"}
    assert len(told["Sampled patch"]) == 8
