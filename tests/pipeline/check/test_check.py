"""`saccade check` on real files: its answers, its files, its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from makers import saccade, small_slide, tissue_pixels, write_slide

import saccade as door
from pipeline.check.tables import plain_line, render_text
from pipeline.cohort.table import read_table


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides of two folders with two of one name, a copy, one that is too coarse, one that is none; and a table."""
    folder = tmp_path_factory.mktemp("hospital")
    write_slide(folder / "a" / "s.tif", tissue_pixels(1024, 900), levels=2)
    write_slide(folder / "b" / "s.tif", tissue_pixels(900, 1024), levels=2)
    shutil.copy(folder / "a" / "s.tif", folder / "b" / "copy.tif")
    write_slide(folder / "coarse.tif", tissue_pixels(600, 500), mpp=4, levels=1)
    (folder / "none.tif").write_text("no slide")
    (folder / "t.csv").write_text(
        "slide,patient,label,split\na/s.tif,P1,tumour,train\nb/s.tif,P1,normal,test\nb/copy.tif,P2,Tumour,test\n"
        "coarse.tif,P3,normal,train\nnone.tif,P4,normal,vall\n"
    )
    return folder


def test_a_table_with_many_faults_is_read_through_to_the_end(hospital: Path) -> None:
    """Each of which refuses `run` or `train` alone, so that they would be met one after the other."""
    summary = door.check(hospital / "t.csv", workers=0)
    words = "\n".join(finding.words for finding in summary.findings if finding.error)
    for fault in ("found 'vall'", "two slides are called 's'", "'Tumour'", "are one slide by content", "patient 'P1'"):
        assert fault in words
    assert [found.status == "error" for found in summary.slides] == [False, False, False, False, True]
    assert summary.failed


def test_slides_too_coarse_for_a_model_are_errors_and_the_others_cost_what_a_run_reads(
    hospital: Path, checkpoint: Path, tmp_path: Path
) -> None:
    summary = door.check(hospital / "t.csv", model=checkpoint, workers=0)
    kinds = {found.slide.path.name: [f.kind for f in found.findings if f.error] for found in summary.slides}
    assert kinds["coarse.tif"] == ["scale"]
    assert summary.estimate is not None
    read = sum(
        door.predict(path, checkpoint).cost.bytes
        for path in (hospital / "a/s.tif", hospital / "b/s.tif", hospital / "b/copy.tif")
    )
    assert summary.estimate.bytes == pytest.approx(read, rel=0.3)
    assert summary.estimate.patches == (48, 0)


def test_a_template_lists_each_slide_once_and_is_a_cohort_table(hospital: Path, tmp_path: Path) -> None:
    """Names that collide are told apart in it, and the file's own resolution, with its doubts, stays the file's."""
    template = tmp_path / "fix.csv"
    before = sorted(hospital.rglob("*"))
    door.check(hospital / "t.csv", workers=0, template=template)
    assert sorted(hospital.rglob("*")) == before
    text = template.read_text().replace("Tumour", "tumour")
    template.write_text(text)
    cohort = read_table(template)
    assert [slide.slide_id for slide in cohort.slides] == ["s", "b-s", "copy", "coarse", "none"]
    assert [slide.split for slide in cohort.slides] == ["train", "test", "test", "train", None]
    assert {slide.mpp for slide in cohort.slides} == {None}
    assert "not a whole-slide image" in text


def test_the_command_answers_in_json_and_by_its_exit_code(hospital: Path, tmp_path: Path) -> None:
    done = saccade("check", hospital, "--json", "--csv", tmp_path / "c.csv", "--workers", "1")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["counts"]["error"] == 1
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 1 + 5 + 1  # slides, and the twins
    assert saccade("check", tmp_path / "nowhere").returncode == 2


def test_what_is_wrong_comes_first_in_the_text(hospital: Path) -> None:
    lines = render_text(door.check(hospital, workers=0)).splitlines()
    assert lines[1].startswith("ERROR    none")
    assert lines[-1].startswith("5 slides, ")
    assert lines[-1].endswith("1 with errors")


def test_nothing_is_wrong_with_a_good_slide(tmp_path: Path) -> None:
    image = tissue_pixels(1200, 1000)
    y, x = np.mgrid[:1000, :1200]
    image[((x - 600) / 400) ** 2 + ((y - 500) / 330) ** 2 > 1] = 244  # tissue is round
    summary = door.check(write_slide(tmp_path / "s.tif", image), workers=0)
    assert (summary.counts, summary.findings, summary.failed) == ({"ok": 1, "warning": 0, "error": 0}, (), False)


def test_a_terminal_does_not_obey_names() -> None:
    assert plain_line("a\x1b[31mb\nc\udcff µ") == "a\\x1b[31mb\\nc\\udcff µ"


def test_a_link_to_itself_is_one_slide_that_fails(tmp_path: Path) -> None:
    small_slide(tmp_path / "good.tif")
    (tmp_path / "loop.tif").symlink_to("loop.tif")
    summary = door.check(tmp_path, workers=0)
    assert [found.slide.slide_id for found in summary.slides if found.status == "error"] == ["loop"]


def test_of_a_configuration_it_says_what_its_training_would_refuse(tmp_path: Path) -> None:
    """Labels of survival are no classes; what each fault is, and of how many slides, before one is opened for hours."""
    names = [small_slide(tmp_path / f"s{i}.tif").name for i in range(10)]
    (tmp_path / "c.yaml").write_text(
        "cohort: {table: t.csv, slide_column: image, time: OS, event: dead}\ntraining: {folds: 2}\n"
    )

    def found(times: list[str], events: list[str]) -> list[tuple[str, bool]]:
        rows = zip(names, times, events, strict=True)
        lines = [f"{name},p{i},{time},{event},x" for i, (name, time, event) in enumerate(rows)]
        (tmp_path / "t.csv").write_text("\n".join(["image,patient,OS,dead,label", *lines]) + "\n")
        summary = door.check(tmp_path / "c.yaml", workers=0)
        return [(one.words, one.error) for one in summary.findings if one.kind not in ("content", "label")]

    times, events = [str(10 + i) for i in range(10)], ["1", "0"] * 5
    assert found(times, events) == []
    ((words, error),) = found(["-3", *times[1:4], "", *times[5:]], [*events[:8], "2", "0"])
    assert error
    assert words == (
        "`saccade train` would refuse this: slide 's0': the time 'OS' must be 0 or more, found '-3'; correct it or "
        "remove the row; 2 more like it ('s4', 's8')"
    )
    ((words, _),) = found(times, ["0"] * 10)
    assert "no event was seen ('dead' is 0 for every slide)" in words
    ((words, error),) = found(times, ["1"] + ["0"] * 9)
    assert "fold" in words
    done = saccade("check", tmp_path / "c.yaml", "--label", "other")
    assert done.returncode == 2
    assert "says where labels and slides are" in done.stderr
