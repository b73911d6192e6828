"""What is said of a prediction's intervals and of what was decided, wherever it is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from makers import saccade, small_slide
from models import TINY, save_untrained

import pipeline.commands
from pipeline.errors import UsageError
from pipeline.predict import decision_of
from stages.prediction.stopping import Decide


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
    assert f"intervals:   {words}: where reading all the tissue would put it" in done.stdout
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["intervals"] == words
    report = (out / "report.html").read_text(encoding="utf-8")
    assert f"the stated interval for what was not read ({words}), the mark" in report
    assert heading in pipeline.commands.predict(slide, model)._repr_html_()


def test_table_record_report_and_notebook_say_what_was_decided(tmp_path: Path) -> None:
    """Of two classes the second, unless another is named; all of the tissue may be read, so that none is undecided;
    what was given keeps its digits."""
    slide = small_slide(tmp_path / "slide.tif")
    model = save_untrained(tmp_path / "model.safetensors")
    out = tmp_path / "out"
    done = saccade("run", slide, "--model", model, "--out", out, "--decide", "1.23456789e-05", "--risk", "0.02345678")
    assert done.returncode == 0, done.stderr
    words = "settled: P(tumour) above 1.23456789e-05 (risk 0.02345678)"
    assert f"; {words}" in done.stderr
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["decision"], row["decided_at"], row["risk"]) == ("tumour above", "1.23456789e-05", "0.02345678")
    assert json.loads((out / "slides/slide/prediction.json").read_text())["row"]["decision"] == "tumour above"
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "settled: P(tumour) above 1.23456789e-05<small>risk 0.02345678</small>" in report
    assert f"1 {words}" in report  # of all slides
    found = pipeline.commands.predict(slide, model, decide=0.9999999999, positive="normal")
    assert found.decision is not None
    assert (found.decision.positive, found.decision.side, found.decision.risk) == ("normal", "below", 0.01)
    assert found.patches_read <= 16
    assert "; settled: P(normal) below 0.9999999999 (risk 0.01)" in repr(found)


def test_of_more_than_two_classes_the_one_to_decide_about_is_named() -> None:
    with pytest.raises(UsageError, match=r"^--decide: which of a, b, c\? Name the class, such as --positive c$"):
        decision_of(TINY, 0.5)
    assert decision_of(TINY, 0.5, positive="a") == Decide(0.5, 0.01, 0)
    assert decision_of(TINY, None) is None
