"""Two runs side by side: what both say of a slide, on one scale, and what is not to be compared."""

from __future__ import annotations

import re
import shutil
import zipfile
from html import unescape
from pathlib import Path

import pytest
from makers import ROOT, saccade
from models import save_untrained
from viewing import change_json, data_in, get, served

from pipeline.errors import UsageError
from pipeline.view.against import compare
from pipeline.view.cohort_page import cohort_page
from pipeline.view.links import Links
from pipeline.view.run_folder import open_run
from pipeline.view.samples import read_samples
from pipeline.view.viewer import Viewer

SERVED = Links(served=True)


@pytest.fixture
def other(second: Path, tmp_path: Path) -> Path:
    """The second run, to be spoilt."""
    return Path(shutil.copytree(second, tmp_path / "other"))


def rows_of(page: str) -> list[str]:
    return re.findall(r"<tr data-number=.*?</tr>", page, re.DOTALL)


def test_the_table_has_both_predictions_and_how_far_they_are_apart(viewed: Path, second: Path) -> None:
    run, beside = open_run(viewed), open_run(second)
    against = compare(run, beside)
    assert against.notes == ()
    for slide, row in zip(run.slides, rows_of(cohort_page(run, SERVED, against)), strict=True):
        theirs = beside.slides[slide.number]
        assert against.slides[slide.number] is theirs
        cell = dict(re.findall(r'data-name="(.*?)" data-sort="(.*?)"', row))
        if not slide.values:
            assert cell["difference"] == "-1"
            continue
        apart = theirs.values["tumour"][0] - slide.values["tumour"][0]
        assert apart != 0
        assert against.apart(slide, "tumour") == pytest.approx(apart)
        assert float(cell["difference"]) == pytest.approx(abs(apart), rel=1e-6)
        assert float(cell["the other run"]) == pytest.approx(theirs.values["tumour"][0], rel=1e-6)
        kinds = re.findall(r'data-kinds="(.*?)"', row)[0].split()
        assert ("otherwise" in kinds) is (slide.row["predicted"] != theirs.row["predicted"])
        assert "alone" not in kinds
    plain = cohort_page(run, SERVED)
    assert "the other run" not in plain


def test_slides_of_one_run_only_and_other_slides_of_a_name_are_told(viewed: Path, other: Path) -> None:
    table = (other / "predictions.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line.replace("plain", "fresh") for line in table if not line.startswith("text")]
    (other / "predictions.csv").write_text("".join(kept), encoding="utf-8")
    (other / "slides/plain").rename(other / "slides/fresh")
    change_json(other / "slides/odd/prediction.json", lambda told: told.update(fingerprint="0" * 64))
    run = open_run(viewed)
    against = compare(run, open_run(other))
    assert [run.slides[number].name for number in against.slides] == ["even"]
    assert against.notes == (
        "2 slides only in this run: plain, text.",
        "1 slide only in the other run: fresh.",
        "Another slide by the same name, not compared: odd.",
    )
    page = unescape(cohort_page(run, SERVED, against))
    assert all(note in page for note in against.notes)
    rows = rows_of(page)
    assert ["alone" in row for row in rows] == [False, True, True, True]
    assert "the other run predicted another slide of this name (its fingerprint differs)" in rows[1]
    pytest.importorskip("bokeh")
    viewer = Viewer(run, beside=open_run(other))
    page = viewer.page(run.slides[1], SERVED)
    assert "Nothing is beside this slide: the other run predicted another slide of this name" in page
    assert data_in(page)["beside"] is None


def test_what_cannot_be_compared_is_refused_in_a_line(viewed: Path, other: Path, tmp_path: Path) -> None:
    run = open_run(viewed)
    with pytest.raises(UsageError, match="is the same run: give another one"):
        compare(run, open_run(viewed))
    with zipfile.ZipFile(ROOT / "tests/cases/made-by-6ee006e.zip") as archive:
        archive.extractall(tmp_path / "old")
    with pytest.raises(UsageError, match=r"no slide of .* is in .*: give a run of the same slides"):
        compare(run, open_run(tmp_path / "old" / "run"))
    change_json(other / "run.json", lambda told: told.update(task="multilabel"))
    with pytest.raises(UsageError, match=r"predicts classification, .* multilabel: give one of the same"):
        compare(run, open_run(other))
    pytest.importorskip("bokeh")
    done = saccade("view", viewed, "--against", tmp_path / "nothing", "--no-browser")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "there is no folder" in done.stderr
    done = saccade("view", viewed, "--against", other, "--static", tmp_path / "pages")
    assert done.stderr == "saccade: error: --static writes the pages of one run: leave --against out\n"


def test_a_run_of_an_earlier_version_is_compared_as_far_as_it_goes(viewed: Path, tmp_path: Path) -> None:
    """Its slide has another name and content; the first is changed here, and the second is not known of it."""
    with zipfile.ZipFile(ROOT / "tests/cases/made-by-6ee006e.zip") as archive:
        archive.extractall(tmp_path)
    old = tmp_path / "run"
    table = (old / "predictions.csv").read_text(encoding="utf-8")
    (old / "predictions.csv").write_text(re.sub(r"(?m)^a,", "even,", table), encoding="utf-8")
    (old / "slides/a").rename(old / "slides/even")
    change_json(old / "slides/even/prediction.json", lambda told: told.pop("fingerprint", None))
    run = open_run(viewed)
    against = compare(run, open_run(old))
    assert [run.slides[number].name for number in against.slides] == ["even"]
    assert against.apart(run.slides[0], "tumour") is not None
    pytest.importorskip("bokeh")
    page = Viewer(run, beside=open_run(old)).page(run.slides[0], SERVED)
    assert "Nothing is beside this slide: the other run has it at another size or resolution." in page


def test_other_classes_are_told_and_what_both_tell_is_compared(viewed: Path, tmp_path: Path) -> None:
    from pipeline.cohort.target import find_target
    from pipeline.run.run import run_cohort
    from pipeline.run.slide import RunSettings

    model = save_untrained(tmp_path / "model.safetensors", classes=("normal", "odd", "tumour"))
    run_cohort(find_target(viewed.parent / "cohort.csv"), tmp_path / "run", RunSettings(model=model, count_seen=True))
    run, three = open_run(viewed), open_run(tmp_path / "run")
    against = compare(run, three)
    assert against.notes == (
        "They predict different things: normal, tumour here, normal, odd, tumour in the other run; what both tell is "
        "compared.",
    )
    page = cohort_page(run, SERVED, against)
    assert page.count('data-name="difference"') == 4
    pytest.importorskip("bokeh")
    told = data_in(Viewer(run, beside=three).page(run.slides[0], SERVED))
    assert told["told"] == told["beside"]["told"] == "tumour"
    ends = [[layer["ticks"][-1] for layer in one["layers"]] for one in (told, told["beside"])]
    assert ends[0] == ends[1], "one scale"
    alone = [
        [layer["ticks"][-1] for layer in data_in(Viewer(one).page(one.slides[0], SERVED, told=at))["layers"]]
        for one, at in ((run, 1), (three, 2))
    ]
    assert alone[0] != alone[1], "each by itself has its own"
    told = data_in(Viewer(three, beside=run).page(three.slides[0], SERVED, told=1))
    assert told["told"] == "odd"
    assert told["beside"]["told"] in ("normal", "tumour"), "its own"


def test_both_maps_of_a_slide_have_one_scale_and_patches_of_their_own(viewed: Path, second: Path) -> None:
    pytest.importorskip("bokeh")
    viewer = Viewer(open_run(viewed), beside=open_run(second))
    with served(viewer) as address:
        status, body, _ = get(f"{address}s/0/")
        told = data_in(body.decode())
        other = told["beside"]
        assert status == 200
        assert [layer["ticks"] for layer in told["layers"]] == [layer["ticks"] for layer in other["layers"]]
        for name, run in ((told, viewed), (other, second)):
            samples = read_samples(run / "slides/even/samples.h5")
            assert [patch["box"] for patch in name["patches"]] == samples.boxes.tolist()
        assert len(other["patches"]) < len(told["patches"])
        assert other["patches"][0]["picture"] == "../../o/0/patch/0.jpg"
        for place in ("o/0/patch/0.jpg", "o/0/overview.jpg", "o/0/thumbnail.jpg"):
            assert get(f"{address}{place}")[0] == 200
        for place in ("o/0/patch/9999.jpg", "o/99/overview.jpg", "o/3/overview.jpg", "o/0/", "o/0/more"):
            assert get(f"{address}{place}")[0] == 404, place
    with served(Viewer(open_run(viewed))) as address:
        assert get(f"{address}o/0/overview.jpg")[0] == 404
