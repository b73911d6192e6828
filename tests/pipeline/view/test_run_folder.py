"""Which folders are runs, what is said of others in one line, and what a run's table says."""

from __future__ import annotations

import csv
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from makers import ROOT
from viewing import change_json

from pipeline.errors import UsageError
from pipeline.output.table import write_table
from pipeline.view.findings import find
from pipeline.view.pixels import open_slide_of
from pipeline.view.run_folder import RunFolder, open_run
from stages.slide.facts import SlideError


def by_name(run: RunFolder) -> dict[str, Any]:
    return {slide.name: slide for slide in run.slides}


def test_a_run_s_slides_with_labels_errors_and_failures(viewed: Path) -> None:
    run = open_run(viewed)
    slides = by_name(run)
    assert list(slides) == ["even", "odd", "plain", "text"]
    even, odd = slides["even"], slides["odd"]
    assert (even.label, odd.label, slides["plain"].label) == ("tumour", "normal", None)
    with (viewed / "predictions.csv").open(newline="", encoding="utf-8") as file:
        table = {row["slide_id"]: row for row in csv.DictReader(file)}
    assert even.off == pytest.approx(1 - float(table["even"]["prob_tumour"]))
    assert odd.off == pytest.approx(1 - float(table["odd"]["prob_normal"]))
    assert even.wrong is (table["even"]["predicted"] != "tumour")
    assert odd.wrong is (table["odd"]["predicted"] != "normal")
    assert slides["text"].folder is None
    assert slides["text"].row["status"] == "failed"
    assert even.values["tumour"] == tuple(float(table["even"][f"prob_tumour{end}"]) for end in ("", "_low", "_high"))


def test_what_is_no_run_is_told_in_one_line_with_the_remedy(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("empty", "other", "training", "begun"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "x.txt").write_text("")
    (tmp_path / "training" / "training.json").write_text("{}")
    (tmp_path / "begun" / "slides").mkdir()
    cut = Path(shutil.copytree(run, tmp_path / "cut"))
    (cut / "run.json").write_text((cut / "run.json").read_text()[:100])
    tableless = Path(shutil.copytree(run, tmp_path / "tableless"))
    (tableless / "predictions.csv").unlink()
    foreign = Path(shutil.copytree(run, tmp_path / "foreign"))
    (foreign / "predictions.csv").write_text("a,b\n1,2\n")
    short = Path(shutil.copytree(run, tmp_path / "short"))
    (short / "predictions.csv").write_bytes((short / "predictions.csv").read_bytes()[:-60])
    newer = Path(shutil.copytree(run, tmp_path / "newer"))
    change_json(newer / "run.json", lambda told: told.update(task="dreaming"))
    for folder, words in {
        "missing": "there is no folder",
        "file": "is a file",
        "empty": "is empty",
        "other": "holds no run",
        "training": "holds a training, not a run",
        "begun": "run.json of .* is not there yet",
        "cut": "run.json of .* is damaged",
        "tableless": "has no slide yet",
        "foreign": "has no columns slide_id and status",
        "short": r"predictions\.csv ends within a row",
        "newer": "predicts 'dreaming', which this version does not know",
        "run/slides/even": "is one slide of a run: name the run",
    }.items():
        with pytest.raises(UsageError, match=words) as told:
            open_run(tmp_path / folder)
        assert "\n" not in str(told.value)
        assert any(remedy in str(told.value) for remedy in ("name the", "run the same", "saccade run", "newer Saccade"))


def test_a_run_that_goes_on_or_lost_results_says_so(run: Path) -> None:
    assert open_run(run).notes == [] or all("cut short" not in note for note in open_run(run).notes)
    change_json(run / "run.json", lambda told: told.update(ended=None))
    shutil.rmtree(run / "slides" / "odd")
    found = open_run(run)
    assert any("goes on, or was cut short" in note for note in found.notes)
    assert any("results of 1 slide are not in the folder" in note for note in found.notes)
    assert by_name(found)["odd"].folder is None
    assert by_name(found)["even"].folder == run / "slides" / "even"


def test_what_a_table_keeps_spreadsheets_from_computing_is_read_as_it_was_meant(run: Path) -> None:
    table = run / "predictions.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    write_table(table, [{**row, "predicted": "+ve", "patient": "=7"} for row in rows])
    assert "'+ve" in table.read_text(encoding="utf-8")
    slide = open_run(run).slides[0]
    assert (slide.row["predicted"], slide.patient) == ("+ve", "=7")


def test_patients_have_their_labels_whatever_they_are_called(run: Path) -> None:
    """As case numbers with a slash, which no folder can have; and each is there once."""
    write_table(run / "patients.csv", [{"patient": "=7", "status": "ok"}, {"patient": "21/7", "status": "ok"}])
    (run / "predictions.csv").unlink()
    told = {"%3D7": {"patient": "=7", "label": "tumour"}, "21%2F7": {"patient": "21/7", "label": "normal"}}
    change_json(run / "run.json", lambda it: it.update(unit="patient", labels=told))
    for name, patient in {"even": "=7", "odd": "21/7", "plain": "21/7"}.items():
        change_json(run / "slides" / name / "prediction.json", lambda it, whose=patient: it.update(patient=whose))
    found = open_run(run)
    assert {one.name: (one.patient, one.label) for one in found.slides} == {
        "even": ("=7", "tumour"), "odd": ("21/7", "normal"), "plain": ("21/7", "normal"),
    }  # fmt: skip
    assert not found.notes


@pytest.mark.parametrize("name", ["..", ".", "", "../../etc", "/etc", "a/b", "a\\b", "a\0b", "slides/../.."])
def test_a_table_that_names_other_folders_leads_nowhere(run: Path, name: str) -> None:
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[0]["slide_id"] = name
    with (run / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert open_run(run).slides[0].folder is None


def test_a_run_of_an_earlier_version_shows_what_it_has(tmp_path: Path) -> None:
    """Made by commit 6ee006e: no labels, no evidence, no thumbnail, an attention map that is no image, moved slides."""
    with zipfile.ZipFile(ROOT / "tests/cases/made-by-6ee006e.zip") as archive:
        archive.extractall(tmp_path)
    run = open_run(tmp_path / "run")
    slide = run.slides[0]
    assert (slide.name, slide.row["predicted"], slide.label) == ("a", "normal", None)
    assert slide.values["tumour"] == pytest.approx((0.114884, 0.0941514, 0.139478))
    found = find(slide)
    assert [layer.name for layer in found.layers] == ["attention"]
    assert found.samples is not None
    assert (len(found.samples.boxes), list(found.samples.names)) == (8, [])
    assert (found.frame.width, found.frame.height) == (330, 290)
    assert any("earlier version made this result" in note for note in found.missing)
    with pytest.raises(SlideError, match=r"is not at .* any more: give the folder that it lies in with --slides"):
        open_slide_of(slide)
    assert open_slide_of(slide, [tmp_path / "slides"]).facts.levels[0].width == 330


def test_what_is_missing_of_a_slide_is_said_and_the_rest_is_shown(run: Path) -> None:
    slide = by_name(open_run(run))["even"]
    whole = find(slide)
    assert whole.missing == []
    assert [layer.name for layer in whole.layers] == ["attention", "evidence"]
    shutil.rmtree(slide.folder / "evidence.zarr")
    (slide.folder / "samples.h5").write_bytes(b"no")
    found = find(slide)
    assert [layer.name for layer in found.layers] == ["attention"]
    assert len(found.missing) == 2
    assert all("run the same" in words for words in found.missing)
    assert (found.frame.width, found.frame.height) == pytest.approx((2048, 1536), abs=64), "as far as its maps reach"
    (slide.folder / "prediction.json").write_text('{"key": ')
    with pytest.raises(UsageError, match=r"not finished, or its prediction\.json is damaged: run the same"):
        find(slide)


def test_another_slide_in_the_place_is_refused(run: Path, tmp_path: Path, slides_folder: Path) -> None:
    slide = by_name(open_run(run))["even"]
    assert open_slide_of(slide).facts.path.name == "even.tif"
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(slides_folder / "odd.tif", moved / "even.tif")
    change_json(slide.folder / "prediction.json", lambda told: told.update(path="/nowhere/even.tif"))
    with pytest.raises(SlideError, match=r"is another slide .* \(its fingerprint differs\)"):
        open_slide_of(slide, [moved])
    (moved / "even.tif").write_text("no slide")
    with pytest.raises(SlideError):
        open_slide_of(slide, [moved])


@pytest.mark.parametrize("path", ["s3://bucket/a.zarr", "https://example.com/a.ome.zarr"])
def test_a_run_makes_nobody_call_an_address(run: Path, path: str) -> None:
    slide = by_name(open_run(run))["even"]
    change_json(slide.folder / "prediction.json", lambda told: told.update(path=path))
    with pytest.raises(SlideError, match="lies in a store of objects"):
        open_slide_of(slide)
