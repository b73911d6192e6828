"""What is said of a prediction's intervals, wherever it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from makers import saccade, small_slide
from models import save_untrained

import pipeline.commands


@pytest.mark.parametrize(
    ("classes", "words", "heading"),
    [
        (("normal", "tumour"), "95 %", "95 % interval"),
        (("a", "b", "c"), "95 %, all classes jointly", "interval (95 %, all classes jointly)"),
    ],
)
def test_console_record_report_and_notebook_say_what_intervals_hold(
    tmp_path: Path, classes: tuple[str, ...], words: str, heading: str
) -> None:
    slide = small_slide(tmp_path / "slide.tif")
    model = save_untrained(tmp_path / "model.safetensors", classes=classes)
    out = tmp_path / "out"
    done = saccade("run", slide, "--model", model, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"intervals:   {words}\n" in done.stdout
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["intervals"] == words
    report = (out / "report.html").read_text(encoding="utf-8")
    assert f"the stated interval for what was not read ({words}), the mark" in report
    assert heading in pipeline.commands.predict(slide, model)._repr_html_()
