"""docs/study.md: all of it, in its order, as a reader would do it, on the demo's slides made small."""

from __future__ import annotations

import csv
import os
import shlex
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


def make_slides(folder: Path) -> None:
    """The demo's, half a millimetre wide, with lesions on every other one."""
    folder.mkdir()
    for k in range(TRAINED + CALIBRATED + NEW):
        write_slide(folder / f"s{k:02}.tif", render(make_scene(0, k, label=CLASSES[k % 2], size=1024)))


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
            process.terminate()


def named() -> list[str]:
    """Files that the page says there are."""
    rows = text_of(PAGE).partition("## 7.")[2].partition("## 8.")[0].splitlines()
    cells = [row.split("|")[2] for row in rows if row.startswith("| ")]
    return [word for cell in cells for word in cell.split("`")[1::2] if word.startswith(("out/", "model/"))]


@pytest.mark.slow
def test_it_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own configuration, each command in a process of its own; `test_commands.py` sees to their options."""
    pytest.importorskip("torch")
    pytest.importorskip("bokeh")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    make_slides(tmp_path / "slides")
    write_block(PAGE, "yaml", tmp_path / "config.yaml")
    for line in (line for block in blocks(PAGE, "sh") for line in block.commands):
        program, *words = shlex.split(line)
        assert program == "saccade"
        command = [sys.executable, "-m", "saccade", *words]
        if words[0] == "view" and "--static" not in words:
            view(command, tmp_path)
            continue
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr
        if "--fix-template" in words:
            fill_in(tmp_path / "cohort.csv")
    assert [name for name in named() if not (tmp_path / name.replace("<id>", "s21")).exists()] == []
    [snippet] = blocks(PAGE, "python")
    done = subprocess.run([sys.executable, "-c", snippet.text], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in (
        f"to slide labels of {TRAINED} patients",
        "on features of the encoder lite0",
        f"On {NEW} slides of {NEW} patients that took no part",
        "0 labelled slides are not counted, 0 could not be read",
        f"on {CALIBRATED} further patients, for a stated error of 10%",
    ):
        assert words in done.stdout
