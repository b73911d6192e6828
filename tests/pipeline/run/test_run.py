"""`saccade run` from the inside: artefacts, failures, reruns, workers."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array
import h5py
import numpy as np
import pytest
from distributed import LocalCluster
from images import FOREIGN, write_image
from jobs import die_on_cut
from makers import ROOT, tissue_pixels, write_slide

from pipeline.cache import cache_cohort
from pipeline.cohort.target import find_target
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.header import model_digest
from pipeline.output.attention_map import read_attention_zarr, read_evidence_zarr
from pipeline.output.slide_folder import read_commit
from pipeline.run import address
from pipeline.run import slide as slide_of_run
from pipeline.run.keys import RunSettings
from pipeline.run.run import RunSummary, run_cohort
from pipeline.run.slide import process_slide
from pipeline.run.workers import each
from stages.prediction.kinds import READ
from stages.slide.files import open_slide


def run(target: Path, out: Path, model: Path, **settings: Any) -> RunSummary:
    return run_cohort(find_target(target), out, RunSettings(model=model, **settings))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def mixed(slides_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good slides among bad ones: truncated, empty, no resolution, implausible resolution, not a slide."""
    folder = tmp_path_factory.mktemp("mixed cohort ü")
    for slide in slides_folder.iterdir():
        shutil.copy(slide, folder)
    whole = (slides_folder / "even.tif").read_bytes()
    (folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    write_slide(folder / "blank.tif", np.full((900, 900, 3), 244, np.uint8))
    write_slide(folder / "no-mpp.tif", tissue_pixels(600, 600), mpp=None)
    write_slide(folder / "bogus-mpp.tif", tissue_pixels(600, 600), mpp=352.8)
    (folder / "text.svs").write_text("not a slide")
    return folder


@pytest.fixture(scope="module")
def finished(mixed: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    summary = run(mixed, out, checkpoint)
    assert (summary.total, summary.ok, summary.failed) == (8, 3, 5)
    return out


def test_bad_slides_fail_with_a_remedy_and_cost_no_other(finished: Path) -> None:
    by_id = {row["slide_id"]: row for row in rows(finished)}
    assert {name for name, row in by_id.items() if row["status"] == "ok"} == {"even", "odd", "plain"}
    expected = {
        "cut": "damaged|truncated|opened|slide",
        "blank": "no tissue",
        "no-mpp": "--mpp",
        "bogus-mpp": "--mpp",
        "text": "not a whole-slide image",
    }
    for name, words in expected.items():
        assert re.search(words, by_id[name]["error"]), by_id[name]
        assert "unexpected" not in by_id[name]["error"]
        assert not (finished / "slides" / name / "prediction.json").exists()


def test_slides_that_the_model_was_fitted_to_are_not_counted_as_test(
    mixed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Whatever they are called and wherever they lie; told again where the result is an earlier one."""
    model = load_model(checkpoint)
    model.trained_on = frozenset({open_slide(mixed / "plain.tif").facts.fingerprint})
    save_model(model, tmp_path / "model.safetensors")
    rows = [("even", "normal"), ("odd", "tumour"), ("other", "normal")]
    shutil.copy(mixed / "plain.tif", tmp_path / "other.tif")
    table = tmp_path / "cohort.csv"
    at = {"even": mixed, "odd": mixed, "other": tmp_path}
    table.write_text("slide,label\n" + "\n".join(f"{at[name] / name}.tif,{label}" for name, label in rows))
    for reused in (0, 3):
        summary = run(table, tmp_path / "out", tmp_path)
        assert (summary.ok, summary.reused) == (3, reused)
        assert summary.metrics["slides"] == 2
        assert summary.not_counted == {"trained on": 1}
    assert json.loads((tmp_path / "out" / "run.json").read_text())["not_counted"] == {"trained on": 1}
    assert "not counted: 1 trained on" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_every_artefact_of_a_predicted_slide_is_there_and_agrees(finished: Path) -> None:
    for row in rows(finished):
        if row["status"] != "ok":
            continue
        folder = finished / "slides" / row["slide_id"]
        names = {path.name for path in folder.iterdir()}
        artefacts = (
            "thumbnail.jpg",
            "attention.zarr",
            "samples.h5",
            "overlay.jpg",
            "overlay.geojson",
            "evidence.zarr",
            "evidence.jpg",
            "preview.jpg",
            "slide.html",
            "gallery.jpg",
            "prediction.json",
        )
        assert names == set(artefacts)
        attention, raster = read_attention_zarr(folder / "attention.zarr")
        assert attention.sum() == pytest.approx(1, abs=1e-5)
        assert np.count_nonzero(attention) == int(row["cells"])
        with h5py.File(folder / "samples.h5") as bag:
            count = int(row["patches_read"])
            assert bag["coords"].shape == (count, 2)
            assert bag["features"].shape == (count, 16)
            assert np.allclose(np.linalg.norm(bag["features"][:], axis=1), 1, atol=1e-4)
            assert np.allclose(bag["attention"][:], attention.ravel()[bag["cell"][:]])
            middle = bag["coords"][:] + bag["coords"].attrs["patch_size_level0"] / 2
            assert np.abs(middle - raster.centres_level0(bag["cell"][:])).max() <= 1
            said = bag["contribution"]
            total = said[:].sum(0) + said.attrs["constant"] + said.attrs["unread"]
            p, told = float(row["prob_tumour"]), json.loads((folder / "prediction.json").read_text())["evidence"]
            assert np.allclose(total, [told["log_odds"][name] for name in said.attrs["classes"]], atol=1e-9)
            assert total[1] == pytest.approx(np.log(p / (1 - p)), abs=1e-4)  # the table has six digits
        evidence, origin, place = read_evidence_zarr(folder / "evidence.zarr")
        assert place == raster
        assert np.array_equal(origin > 0, attention > 0)
        assert not evidence[:, origin == 0].any()
        assert np.count_nonzero(origin == READ) == count
        low, p, high = (float(row[f"prob_tumour{end}"]) for end in ("_low", "", "_high"))
        assert 0 <= low <= p <= high <= 1
        assert 0 < float(row["fraction_read"]) <= 1
        geojson = json.loads((folder / "overlay.geojson").read_text())
        assert sum(f["properties"]["objectType"] == "detection" for f in geojson["features"]) == count


def test_a_rerun_does_only_what_is_missing(finished: Path, mixed: Path, checkpoint: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("slides/*/*.*")}
    lost = finished / "slides" / "odd" / "prediction.json"
    lost.unlink()
    summary = run(mixed, finished, checkpoint)
    assert (summary.ok, summary.reused) == (3, 2)
    after = {path: path.stat().st_mtime_ns for path in finished.glob("slides/*/*.*")}
    assert {path for path in after if after[path] == before.get(path)} == {p for p in before if p.parent.name != "odd"}
    assert lost.exists()


def test_results_do_not_depend_on_the_other_slides_or_on_the_run(
    finished: Path, mixed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    run(mixed / "odd.tif", tmp_path / "alone", checkpoint)
    alone = rows(tmp_path / "alone")[0]
    (together,) = (row for row in rows(finished) if row["slide_id"] == "odd")
    for row in (alone, together):
        row.pop("seconds")
        row.pop("warnings", None)  # a column that is there where a slide has any
    assert alone == together


def test_worker_processes_give_the_same_results(finished: Path, mixed: Path, checkpoint: Path, tmp_path: Path) -> None:
    cohort, out = find_target(mixed), tmp_path / "out"
    run_cohort(cohort, out, RunSettings(model=checkpoint), workers=2)
    columns = ("slide_id", "status", "prob_tumour", "prob_tumour_low", "patches_read", "bytes_read", "key")
    assert [[row[c] for c in columns] for row in rows(out)] == [[row[c] for c in columns] for row in rows(finished)]


def test_a_worker_that_dies_takes_only_its_own_slide(mixed: Path) -> None:
    """A decoder's crash cannot be caught; the slide fails, the others go on in a new worker."""
    cohort = find_target(mixed)
    jobs = [(slide,) for slide in cohort.slides]
    found = dict(each(die_on_cut, jobs, workers=1, scheduler=None))
    assert [row["status"] for slide, row in found.items() if slide.slide_id == "cut"] == ["failed"]
    assert all(row["status"] == "ok" for slide, row in found.items() if slide.slide_id != "cut")
    assert len(found) == len(jobs)


def test_a_scheduler_by_address(mixed: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs="ERROR"
    ) as cluster:
        cohort = find_target(mixed / "even.tif")
        summary = run_cohort(
            cohort, tmp_path / "out", RunSettings(model=checkpoint), scheduler=cluster.scheduler_address
        )
    assert summary.ok == 1
    assert summary.memory["processes"] == 2  # this one, and that of the slide
    monkeypatch.setattr(address, "CONNECT_SECONDS", 0.5)
    with pytest.raises(UsageError, match="no dask scheduler answers"):
        run_cohort(cohort, tmp_path / "other", RunSettings(model=checkpoint), scheduler="tcp://127.0.0.1:1")
    assert dask.array.ones(3).sum().compute() == 3  # what a script computes afterwards does not wait for it


def test_a_cached_pyramid_gives_the_slides_own_results(mixed: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert cache_cohort(find_target(mixed / "odd.tif"), tmp_path / "cache").failed == 0
    (pyramid,) = find_target(tmp_path / "cache").slides
    assert pyramid.path.name == "odd.ome.zarr"
    run(mixed / "odd.tif", tmp_path / "slide", checkpoint)
    run(pyramid.path, tmp_path / "pyramid", checkpoint)
    one, other = rows(tmp_path / "slide")[0], rows(tmp_path / "pyramid")[0]
    same = (
        "predicted",
        "prob_tumour",
        "prob_tumour_low",
        "prob_tumour_high",
        "patches_read",
        "cells",
        "fraction_read",
        "key",
    )
    assert [one[c] for c in same] == [other[c] for c in same]


@pytest.mark.slow
def test_images_that_others_wrote_are_predicted_as_the_slide_is(checkpoint: Path, tmp_path: Path) -> None:
    """In worker processes, whatever the layout: the same pixels get the same attention; another kind fails alone."""
    folder, image = tmp_path / "slides", tissue_pixels(1200, 1000)
    write_slide(folder / "slide.tif", image, compression="deflate")
    for name in ("bioformats2raw", "shards"):
        write_image(folder / f"{name}.ome.zarr", image, **FOREIGN[name])
    write_image(folder / "deep.ome.zarr", image.astype(np.uint16))
    summary = run_cohort(find_target(folder), tmp_path / "out", RunSettings(model=checkpoint), workers=2)
    assert (summary.ok, summary.failed) == (3, 1), summary.rows
    assert "its samples are uint16" in next(row["error"] for row in rows(tmp_path / "out") if row["slide_id"] == "deep")
    maps = [
        read_attention_zarr(tmp_path / "out" / "slides" / name / "attention.zarr")
        for name in ("slide", "bioformats2raw", "shards")
    ]
    for attention, raster in maps[1:]:
        assert raster == maps[0][1]
        np.testing.assert_allclose(attention, maps[0][0], atol=1e-7)


def test_another_slide_of_the_same_name_is_never_overwritten(mixed: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(mixed / "even.tif", out, checkpoint)
    kept = read_commit(out / "slides" / "even")
    impostor = write_slide(tmp_path / "elsewhere" / "even.tif", tissue_pixels(900, 900))
    summary = run(impostor, out, checkpoint)
    assert summary.failed == 1
    assert "another slide of this name" in summary.rows[0]["error"]
    assert read_commit(out / "slides" / "even") == kept


def test_labels_that_the_model_does_not_know_are_refused(mixed: Path, checkpoint: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text(f"slide,label\n{mixed / 'even.tif'},benign\n")
    with pytest.raises(UsageError, match="benign"):
        run(table, tmp_path / "out", checkpoint)
    assert not (tmp_path / "out").exists()


def test_nothing_starts_without_a_usable_model(mixed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(b"\x00" * 100)
    for path in (tmp_path / "missing.safetensors", broken):
        with pytest.raises(UsageError, match="checkpoint"):
            run(mixed, tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


def test_what_every_slide_would_refuse_is_said_once(mixed: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--samples 1 is too few for an interval: give at least 2"):
        run(mixed, tmp_path / "out", checkpoint, samples=1)
    with pytest.raises(UsageError, match="iid tells no interval beyond 2048; use --scheme systematic"):
        run(mixed, tmp_path / "out", checkpoint, samples=3000, scheme="iid")
    with pytest.raises(UsageError, match="no intervals from the scheme 'topk': use --scheme systematic, gumbel or iid"):
        run(mixed, tmp_path / "out", checkpoint, scheme="topk")


def test_metrics_are_there_where_the_table_has_labels(mixed: Path, checkpoint: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    named = {"even": "normal", "odd": "tumour", "plain": "normal"}
    table.write_text("slide,label\n" + "".join(f"{mixed / name}.tif,{label}\n" for name, label in named.items()))
    summary = run(table, tmp_path / "out", checkpoint)
    assert 0 <= summary.metrics["auroc"]["value"] <= 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["metrics"]["slides"] == 3


def test_slides_to_train_on_are_predicted_but_not_counted_as_test(
    mixed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    rows = [("even", "normal", "test"), ("odd", "tumour", "test"), ("plain", "normal", "train")]
    table = tmp_path / "cohort.csv"
    lines = [f"{mixed / name}.tif,{label},{split},{'NS'[label == 'normal']}" for name, label, split in rows]
    table.write_text("slide,label,split,hospital\n" + "\n".join(lines))
    summary = run(table, tmp_path / "out", checkpoint)
    assert summary.ok == 3
    assert summary.metrics["slides"] == 2
    assert {site: told["slides_per_class"] for site, told in summary.metrics["sites"].items()} == {
        "N": {"normal": 0, "tumour": 1},
        "S": {"normal": 1, "tumour": 0},
    }
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "positive class: tumour" in report
    assert report.count("one class only") == 2


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"mpp": float("inf")}, "--mpp: implausible"), ({"device": "foo"}, "no device is called 'foo'")],
)
def test_what_no_slide_could_be_read_with_is_said_once(
    mixed: Path, checkpoint: Path, tmp_path: Path, setting: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        run(mixed, tmp_path / "out", checkpoint, **setting)
    assert not (tmp_path / "out").exists()


def test_a_slide_over_the_budget_is_refused_and_the_peak_is_told(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is read; what was done earlier needs nothing, and stands."""
    slide, out = slides_folder / "even.tif", tmp_path / "out"
    (row,) = run(slide, out, checkpoint, memory=10**6).rows
    assert row["status"] == "failed"
    assert "it needs about 601 MB of memory at once" in row["error"]
    monkeypatch.setattr(slide_of_run, "memory_share", lambda: 10**6)  # as of a dask worker's process
    (job,) = find_target(slide).slides
    assert process_slide(job, out, RunSettings(checkpoint), model_digest(checkpoint))["error"] == row["error"]
    told = run(slide, out, checkpoint)
    assert told.ok == 1
    assert told.memory["processes"] == 1
    assert told.memory["largest_process_bytes"] == told.memory["together_bytes"] > 10**8
    assert json.loads((out / "run.json").read_text())["memory"] == told.memory
    assert run(slide, out, checkpoint, memory=10**6).reused == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_loads_no_library_that_it_does_not_use(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, workers: int
) -> None:
    """Each took a process up to a second. With workers the parent computes nothing, and loads nothing that does."""
    unused = ["dask.array", "distributed", "xarray", "pandas", "sklearn", "lightning", "torchmetrics", "matplotlib"]
    unused += ["scipy.stats", "scipy.signal", "skimage.measure._polygon", "skimage.color", "fontTools"]
    unused += ["zarr", "fsspec", *(["torch", "dask", "scipy", "skimage", "openslide", "h5py"] if workers else [])]
    code = f"""
import sys, saccade
summary = saccade.run(sys.argv[1], sys.argv[2], out=sys.argv[3], workers={workers})
print(summary.ok, *(name for name in {unused} if name in sys.modules))
"""
    command = [sys.executable, "-c", code, slides_folder / "even.tif", checkpoint, tmp_path / "out"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["1"], done.stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_weights_that_do_not_fit_are_told_before_a_slide_is_tried(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, workers: int
) -> None:
    """Whoever is to compute with them says so: the header alone does not show it."""
    data, model = checkpoint.read_bytes(), tmp_path / "model.safetensors"
    dim = re.search(rb'dim\\": (\d+)', data)
    assert dim is not None
    model.write_bytes(data[: dim.start(1)] + b"9" * len(dim[1]) + data[dim.end(1) :])
    with pytest.raises(UsageError, match="cannot load the checkpoint"):
        run_cohort(find_target(slides_folder), tmp_path / "out", RunSettings(model=model), workers=workers)
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_slide_that_cannot_be_opened_is_refused_without_what_computes(tmp_path: Path, checkpoint: Path) -> None:
    path = write_slide(tmp_path / "cut.tif", tissue_pixels(1024, 768))
    path.write_bytes(path.read_bytes()[:5000])
    code = """
import sys, saccade
(row,) = saccade.run(sys.argv[1], sys.argv[2], out=sys.argv[3]).rows
print(row["status"], *(name for name in ("torch", "scipy", "dask") if name in sys.modules))
"""
    command = [sys.executable, "-c", code, path, checkpoint, tmp_path / "out"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["failed"]
