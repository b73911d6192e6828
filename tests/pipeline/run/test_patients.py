"""A run with a model of patients: one prediction of each, its slides' folders, failures and resumption."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from backbones import DIM, tiny
from makers import spoil, tissue_pixels, write_slide
from models import FROZEN, TINY, frozen_model, sampler_model, tiny_backbone

import saccade
from pipeline.check.check import check_cohort
from pipeline.cohort.cohort import Cohort
from pipeline.cohort.target import find_target
from pipeline.dry_run.dry_run import dry_run_cohort
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.joint import joint_view
from pipeline.model.look import look
from pipeline.output.attention_map import read_attention_zarr
from pipeline.output.slide_folder import read_commit
from pipeline.run import pictures
from pipeline.run.books import RunSummary
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.run.slide import need_for, opened_for
from stages.slide.facts import SlideError

__all__ = ["tiny"]  # a fixture

SLIDES = {"a1": "p", "a2": "p", "a3": "p", "b": "q", "c1": "r", "c2": "r"}
"""Whose slides there are."""


def write_cohort(folder: Path) -> Path:
    lines = ["slide,patient,label"]
    for i, (name, patient) in enumerate(SLIDES.items()):
        write_slide(folder / f"{name}.tif", tissue_pixels(300 + 8 * i, 320, margin=0.1), tile=128, levels=2, factor=4)
        lines.append(f"{name}.tif,{patient},{'a' if patient == 'p' else 'b'}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    return write_cohort(tmp_path)


def checkpoint(folder: Path, *, unit: str = "patient", **changes: Any) -> Path:
    path = folder / f"{unit}.safetensors"
    if not path.exists():
        spec = replace(TINY, classes=("a", "b"), unit=unit, patch_mpp=0.5, attention_mpp=4.0, **changes)
        save_model(sampler_model(spec), path)
    return path


def ran(cohort: Path, *, unit: str = "patient", table: str = "cohort.csv", **how: Any) -> RunSummary:
    settings = RunSettings(checkpoint(cohort, unit=unit), device="cpu", samples=how.pop("samples", None))
    found: Cohort = find_target(cohort / table)
    return run_cohort(found, cohort / "out", settings, **how)


@pytest.fixture(scope="module")
def run_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cohort = write_cohort(tmp_path_factory.mktemp("run"))
    assert ran(cohort).ok == 3
    return cohort


@pytest.fixture
def done(run_before: Path, tmp_path: Path) -> Path:
    """A cohort that was run, to go on with."""
    return shutil.copytree(run_before, tmp_path, dirs_exist_ok=True)


def table_of(cohort: Path, name: str = "patients.csv") -> dict[str, dict[str, str]]:
    with (cohort / "out" / name).open() as file:
        return {row.get("slide_id") or row["patient"]: row for row in csv.DictReader(file)}


def record(cohort: Path, *parts: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cohort / "out").joinpath(*parts, "prediction.json").read_text())
    return found


def test_a_row_a_patient_and_each_slide_with_its_share_of_the_draw(cohort: Path) -> None:
    summary = ran(cohort)
    assert summary.line == "3 of 3 patients predicted (0 already done), 0 failed"
    rows = table_of(cohort)
    assert [(name, row["slides"]) for name, row in rows.items()] == [("p", "a1; a2; a3"), ("q", "b"), ("r", "c1; c2")]
    assert all(row["patches_read"] == "12" for row in rows.values()), "one budget over all slides"
    assert not (cohort / "out" / "predictions.csv").exists()
    for patient in "pqr":
        own = [name for name, whose in SLIDES.items() if whose == patient]
        shares, patches, cells = [], 0, 0
        for name in own:
            folder = cohort / "out" / "slides" / name
            assert {"overlay.jpg", "overlay.geojson", "evidence.jpg", "samples.h5"} <= {
                p.name for p in folder.iterdir()
            }
            attention, _ = read_attention_zarr(folder / "attention.zarr")
            told = record(cohort, "slides", name)
            assert told["patient"] == told["row"]["patient"] == patient
            assert told["share_of_attention"] == pytest.approx(float(np.nansum(attention)), abs=1e-5)
            shares.append(told["share_of_attention"])
            if len(own) > 1:  # uniform is what each of the patient's cells would get
                outlines = json.loads((folder / "overlay.geojson").read_text())["features"]
                for one in outlines:
                    said = one["properties"]["measurements"]
                    if "weight" in said:
                        uniform = said["attention"] * int(rows[patient]["cells"])
                        assert said["attention, times uniform"] == pytest.approx(uniform, rel=1e-4)
            patches += told["row"]["patches_read"]
            cells += told["row"]["cells"]
            with h5py.File(folder / "samples.h5") as file:
                assert len(file["coords"]) == told["row"]["patches_read"]
            # the prediction in parts that add up, and the patient's
            parts = told["evidence"]
            for one, value in parts["log_odds"].items():
                assert value == pytest.approx(sum(parts[part][one] for part in ("constant", "patches", "unread")))
            assert told["row"]["prob_b"] == record(cohort, "patients", patient)["row"]["prob_b"]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert patches == 12
        assert cells == int(rows[patient]["cells"])
    metrics = json.loads((cohort / "out" / "metrics.json").read_text())
    assert metrics["metrics"]["patients"] == 3
    assert metrics["metrics"]["slides"] == 6
    assert metrics["metrics"]["unit"] == "patient"
    report = (cohort / "out" / "report.html").read_text()
    assert all(f"slides/{name}/overlay.jpg" in report for name in SLIDES)
    assert "3 patients" in report


def test_the_prediction_is_that_of_the_joint_view_and_of_one_slide_that_of_a_model_of_slides(done: Path) -> None:
    model = sampler_model(replace(TINY, classes=("a", "b"), patch_mpp=0.5, attention_mpp=4.0))
    looks = sorted(
        (look(done / f"{name}.tif", model) for name in ("c1", "c2")), key=lambda one: one.slide.facts.fingerprint
    )
    everything = model.sample(
        joint_view([one.view for one in looks], 3), generator=torch.Generator(), samples=10**6
    ).prediction
    row = record(done, "patients", "r")["row"]
    assert row["prob_b_low"] <= float(everything.values[1]) <= row["prob_b_high"]
    (done / "out").rename(done / "of-patients")
    ran(done, unit="slide")
    slide = record(done, "slides", "b")
    patient = json.loads((done / "of-patients" / "patients" / "q" / "prediction.json").read_text())
    for name in ("prob_a", "prob_b", "prob_b_low", "prob_b_high", "patches_read", "fraction_read", "bytes_read"):
        assert slide["row"][name] == patient["row"][name], name


def test_nothing_depends_on_the_order_of_the_table_and_nothing_is_done_twice(done: Path) -> None:
    before = table_of(done)
    assert ran(done).reused == 3
    first, *others = (done / "cohort.csv").read_text().splitlines()
    (done / "turned.csv").write_text("\n".join([first, *others[::-1]]) + "\n")
    assert ran(done, table="turned.csv").reused == 3
    (done / "out").rename(done / "earlier")
    ran(done, table="turned.csv")
    after = table_of(done)
    for patient, row in before.items():
        assert {**row, "seconds": ""} == {**after[patient], "seconds": ""}
    # what changes is done again, and only that
    write_slide(done / "a2.tif", tissue_pixels(340, 300, margin=0.1), tile=128, levels=2, factor=4)
    (done / "out" / "slides" / "c1" / "samples.h5").unlink()
    told = dry_run_cohort(find_target(done / "cohort.csv"), done / "out", RunSettings(checkpoint(done), device="cpu"))
    assert {row["slide_id"]: row["status"] for row in told.rows} == {"p": "stale", "q": "done", "r": "stale"}
    assert ran(done).reused == 1
    assert (done / "out" / "slides" / "c1" / "samples.h5").exists()
    # and patients of an earlier run stay in the table
    (done / "some.csv").write_text("\n".join([first, *others[3:4]]) + "\n")
    assert ran(done, table="some.csv").kept == 2
    rows = table_of(done)
    assert set(rows) == {"p", "q", "r"}
    assert not any("earlier run" in row["warnings"] for row in rows.values())
    # with a word where a slide of theirs is another by now
    write_slide(done / "c1.tif", tissue_pixels(350, 300, margin=0.1), tile=128, levels=2, factor=4)
    assert ran(done, table="some.csv").stale == 1
    assert "its slide c1 may have changed since" in table_of(done)["r"]["warnings"]


def test_a_slide_that_fails_is_named_and_a_patient_of_whom_none_is_left_fails(cohort: Path) -> None:
    for name in ("a2", "b"):
        for index in range(9):
            spoil(cohort / f"{name}.tif", 0, index)
    (cohort / "c2.tif").unlink()
    summary = ran(cohort, samples=60)
    assert (summary.ok, summary.failed, summary.left_out) == (2, 1, 2)
    rows = table_of(cohort)
    assert "left out: a2: " in rows["p"]["warnings"]
    assert "left out: c2: " in rows["r"]["warnings"]
    assert rows["q"]["status"] == "failed"
    assert "b.tif" in rows["q"]["error"]
    assert not (cohort / "out" / "slides" / "a2").exists()
    whole = ran(cohort, samples=60, retry_failed=True)
    assert whole.waiting == 0
    assert (whole.reused, whole.failed, whole.left_out) == (2, 1, 2)
    assert whole.line.endswith("; 2 slides of theirs left out")
    # what failed is not forgotten in a run of others
    (cohort / "some.csv").write_text("slide,patient,label\na1.tif,s,a\n")
    assert ran(cohort, table="some.csv", samples=60).kept == 3
    assert table_of(cohort)["q"]["status"] == "failed"
    assert table_of(cohort)["q"]["slides"] == "b"
    assert "its results of slide a1 are gone, or others'" in table_of(cohort)["p"]["warnings"]
    # it is as if the slide had not been there
    (cohort / "less.csv").write_text("slide,patient,label\na1.tif,p,a\na3.tif,p,a\n")
    (cohort / "out").rename(cohort / "earlier")
    ran(cohort, table="less.csv", samples=60)
    assert table_of(cohort)["p"]["prob_b"] == rows["p"]["prob_b"]
    # and once it can be read, it is
    write_slide(cohort / "c2.tif", tissue_pixels(340, 320, margin=0.1), tile=128, levels=2, factor=4)
    assert ran(cohort, samples=60).failed == 1
    assert "left out: c2" not in table_of(cohort)["r"]["warnings"]


@pytest.mark.slow
def test_the_pictures_of_a_patients_slides_have_one_scale(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strongest attention and evidence on any of them; of a patient of one slide they are that slide's."""
    drawn: dict[str, list[dict[str, Any]]] = {"overlay_page": [], "evidence_page": []}
    for name, calls in drawn.items():
        draw = getattr(pictures, name)

        def listening(*parts: Any, draw: Any = draw, calls: Any = calls, **said: Any) -> Any:
            calls.append({**said, "values": np.asarray(parts[1])})
            return draw(*parts, **said)

        monkeypatch.setattr(pictures, name, listening)
    ran(cohort)
    for name, calls in drawn.items():
        of: dict[str, list[dict[str, Any]]] = {}
        for one in calls:
            of.setdefault(str(one["title"]).split(":")[0].split(" patient ")[-1], []).append(one)
        assert {patient: len(own) for patient, own in of.items()} == {"p": 3, "q": 1, "r": 2}
        for own in of.values():
            cells = [one.get("cells") or 1 for one in own]
            strongest = max(np.abs(one["values"]).max() * k for one, k in zip(own, cells, strict=True))
            tops = {one["top"] for one in own}
            assert len(tops) == 1
            if len(own) > 1:
                assert tops.pop() == pytest.approx(strongest, rel=1e-3), name
            else:
                assert tops == {None}
    assert read_commit(cohort / "out" / "slides" / "a1")["pictures"]["scale"]  # type: ignore[index]


def test_memory_is_what_all_slides_of_a_patient_take(cohort: Path) -> None:
    """Each by itself fits; the thumbnails of three that are held together do not."""
    path = checkpoint(cohort)
    model, slides = load_model(path), find_target(cohort / "cohort.csv").slides
    most = max(need_for(opened_for(slide, RunSettings(path)), model).nbytes for slide in slides)
    settings = RunSettings(path, device="cpu", memory=most)
    told = dry_run_cohort(find_target(cohort / "cohort.csv"), cohort / "out", settings).counts
    summary = run_cohort(find_target(cohort / "cohort.csv"), cohort / "out", settings)
    assert told == {"would fail": 2, "to do": 1}
    failed = {row["patient"]: row["error"] for row in summary.rows if row["status"] != "ok"}
    assert set(failed) == {"p", "r"}
    assert "it needs about 600 MB of memory at once" in failed["p"]
    settings = replace(settings, memory=round(1.01 * most))
    assert run_cohort(find_target(cohort / "cohort.csv"), cohort / "out", settings).failed == 0


def test_what_a_check_foretells_is_one_draw_a_patient(done: Path) -> None:
    found = check_cohort(find_target(done / "cohort.csv"), model=checkpoint(done)).estimate
    assert found is not None
    rows = ran(done).rows
    read = sum(row["patches_read"] for row in rows)
    assert read == pytest.approx(found.patches[0], abs=len(SLIDES))  # shares are rounded up
    assert "patches a patient" in found.how


def test_in_python_a_patient_is_predicted_as_a_run_does(done: Path) -> None:
    model = saccade.load_model(checkpoint(done))
    rows = {row["patient"]: row for row in ran(done).rows}
    for patient in ("p", "q"):
        paths = [done / f"{name}.tif" for name, whose in SLIDES.items() if whose == patient][::-1]
        found = saccade.predict_patient([saccade.open_slide(paths[0]), *paths[1:]], model)
        assert isinstance(found, saccade.PatientPrediction)
        assert list(found.slides) == [path.stem for path in paths]
        for name, value in found.probabilities.items():
            assert value == pytest.approx(rows[patient][f"prob_{name}"], abs=1e-6)
            assert found.intervals[name][0] == pytest.approx(rows[patient][f"prob_{name}_low"], abs=1e-6)
        assert found.predicted == rows[patient]["predicted"]
        assert f"patient of {len(paths)} slide" in repr(found)
        assert f"{rows[patient]['patches_read']} of {rows[patient]['cells']} patches" in found._repr_html_()
        assert next(iter(found.slides.values())).plot().axes


def test_in_python_what_is_no_patient_is_refused_and_a_slide_that_fails_is_named(cohort: Path) -> None:
    one, two = cohort / "a1.tif", cohort / "a2.tif"
    for slides, unit, words in (
        ([], "patient", "one slide at least"),
        ([one, one], "patient", "two slides are called 'a1'"),
        ([one, two], "slide", "is for models of patients, and this one is of slides"),
    ):
        with pytest.raises(UsageError, match=words):
            saccade.predict_patient(slides, checkpoint(cohort, unit=unit))
    for index in range(9):
        spoil(two, 0, index)
    with pytest.raises(SlideError, match=r"^a2: "):
        saccade.predict_patient([one, two], checkpoint(cohort), samples=40)


def test_slides_that_no_patch_was_drawn_from_have_their_folders_too(cohort: Path) -> None:
    lines = ["slide,patient", *(f"{name}.tif,all" for name in SLIDES)]
    (cohort / "one.csv").write_text("\n".join(lines) + "\n")
    ran(cohort, table="one.csv", samples=4)
    counts = [record(cohort, "slides", name)["row"]["patches_read"] for name in SLIDES]
    assert sum(counts) == 4
    assert 0 in counts
    assert ran(cohort, table="one.csv", samples=4).reused == 1


@pytest.mark.slow
def test_one_task_a_patient_on_workers(cohort: Path) -> None:
    ran(cohort, workers=2)
    rows = table_of(cohort)
    (cohort / "out").rename(cohort / "earlier")
    ran(cohort)
    drop = {"seconds": ""}
    assert {name: row | drop for name, row in table_of(cohort).items()} == {
        name: row | drop for name, row in rows.items()
    }


@pytest.mark.slow
def test_a_frozen_encoder_and_what_it_foretells_of_each_slide(cohort: Path, tiny: object) -> None:
    spec = replace(FROZEN, classes=("a", "b"), unit="patient", patch_mpp=0.5, coarse_mpp=2.0)
    save_model(frozen_model(spec, backbone=tiny_backbone(dim=DIM)), cohort / "patient.safetensors")
    assert ran(cohort).ok == 3
    told = record(cohort, "slides", "a1")["evidence"]
    assert any(told["unread"].values())
    for one, value in told["log_odds"].items():
        assert value == pytest.approx(sum(told[part][one] for part in ("constant", "patches", "unread")))


def test_slides_of_a_patient_with_two_labels_are_refused(cohort: Path) -> None:
    text = (cohort / "cohort.csv").read_text().replace("a3.tif,p,a", "a3.tif,p,b")
    (cohort / "cohort.csv").write_text(text)
    with pytest.raises(UsageError, match=r"patient 'p' has two labels, 'a' .* and 'b'"):
        ran(cohort)
