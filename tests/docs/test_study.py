"""docs/study.md: all of it, in its order, as a reader would do it, on the demo's slides made small."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from makers import ROOT
from pages import blocks, text_of, write_block

from pipeline.demo.painting import render, write_slide
from pipeline.demo.scene import CLASSES, make_scene
from pipeline.output.table import write_table

PAGE = "docs/study.md"
TRAINED, CALIBRATED, NEW = 10, 9, 4
"""Patients of each of its tables."""
QUICK = """
attention: {kind: learned}
encoder: {name: small, dim: 8}
view: {patch_px: 64}
sampling: {samples: 8}
training: {epochs: 1, batch_size: 4, calibration_slides: 2, device: cpu}
"""
"""Spares the pretrained encoder; what the commands do with tables and folders is the same."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's slides, half a millimetre wide, with lesions on every other one."""
    folder = tmp_path_factory.mktemp("study") / "slides"
    folder.mkdir()
    for k in range(TRAINED + CALIBRATED + NEW):
        write_slide(folder / f"s{k:02}.tif", render(make_scene(0, k, label=CLASSES[k % 2], size=1024)))
    return folder


def fill_in(template: Path) -> None:
    """What a reader does with the table of all slides: patients, labels, and three parts."""
    with template.open(newline="", encoding="utf-8") as file:
        rows = [{**row, "patient": f"p{k}", "label": CLASSES[k % 2]} for k, row in enumerate(csv.DictReader(file))]
    cut = (0, TRAINED, TRAINED + CALIBRATED, len(rows))
    for name, begin, end in zip(("cohort", "calibration", "new"), cut[:-1], cut[1:], strict=True):
        write_table(template.with_name(f"{name}.csv"), rows[begin:end])


def view(command: list[str], folder: Path) -> None:
    """Start the viewer, see that its page comes, and stop it."""
    with subprocess.Popen([*command, "--no-browser"], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            with urllib.request.urlopen(process.stdout.readline().strip(), timeout=60) as answer:
                assert answer.status == 200
        finally:
            process.send_signal(signal.SIGINT)


def study(slides: Path, folder: Path, more: str, monkeypatch: pytest.MonkeyPatch, *, processes: bool) -> str:
    """Do all that the page says; what its program prints in the end."""
    from pipeline.cli.assembly import app

    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    shutil.copytree(slides, folder / "slides")
    write_block(PAGE, "yaml", folder / "config.yaml")
    with (folder / "config.yaml").open("a") as file:
        file.write(more)
    for line in (line for block in blocks(PAGE, "sh") for line in block.commands):
        _, *words = shlex.split(line)
        command = [sys.executable, "-m", "saccade", *words]
        if words[0] == "view" and "--static" not in words:
            view(command, folder)
        elif processes:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=1200)
        else:
            words += ["--workers", "0"] * (words[0] in ("check", "run"))
            assert not app(words, prog_name="saccade", standalone_mode=False), line
        if "--fix-template" in words:
            fill_in(folder / "cohort.csv")
    [written] = blocks(PAGE, "python")
    (folder / "written.py").write_text(written.text)
    done = subprocess.run([sys.executable, "written.py"], cwd=folder, check=True, capture_output=True, text=True)
    assert all((folder / name.replace("<id>", "s21")).exists() for name in named())
    return done.stdout


def named() -> list[str]:
    """Files that the page says there are."""
    rows = text_of(PAGE).partition("## 7.")[2].partition("## 8.")[0].splitlines()
    cells = [row.split("|")[2] for row in rows if row.startswith("| ")]
    return [word for cell in cells for word in cell.split("`")[1::2] if word.startswith(("out/", "model/"))]


def check_said(said: str) -> None:
    assert f"to slide labels of {TRAINED} patients" in said
    assert f"On {NEW} slides of {NEW} patients that took no part" in said
    assert "0 labelled slides are not counted, 0 could not be read" in said
    assert f"on {CALIBRATED} further patients, for a stated error of 10%" in said


@pytest.mark.slow
def test_it_runs_with_a_small_encoder(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bokeh")
    check_said(study(slides, tmp_path, QUICK, monkeypatch, processes=False))


@pytest.mark.slow
def test_it_runs_as_it_is_written(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own configuration, and each command in a process of its own."""
    pytest.importorskip("bokeh")
    said = study(slides, tmp_path, "", monkeypatch, processes=True)
    check_said(said)
    assert "encoder lite0" in said
