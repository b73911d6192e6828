"""A run says what made it."""

from __future__ import annotations

import json

import zarr

from pipeline.output.run_record import write_run


def test_a_run_says_what_made_it(tmp_path):
    write_run(tmp_path / "run.json", {"command": ["saccade", "run"], "ok": 3})
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["program"] == "saccade"
    assert run["ok"] == 3
    assert {"saccade", "torch", "zarr", "dask", "openslide-python", "python"} <= set(run["versions"])
    assert run["versions"]["zarr"] == zarr.__version__
    assert run["machine"]["cpus"] >= 1
