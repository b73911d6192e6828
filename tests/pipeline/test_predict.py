"""What is said of a prediction's intervals and of what was decided, wherever it is said."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import saccade, small_slide, tissue_pixels, write_slide
from models import TINY, save_untrained

import pipeline.commands
from pipeline.asked import decision_of
from pipeline.errors import UsageError
from pipeline.output.table import decision_in_words
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
    with pytest.raises(UsageError, match=r"^--decide: which of a, b, c\? Name one, such as --positive c$"):
        decision_of(TINY, 0.5)
    assert decision_of(TINY, 0.5, positive="a") == Decide(0.5, 0.01, 0)
    assert decision_of(TINY, None) is None


def test_of_other_tasks_a_threshold_is_of_what_they_tell() -> None:
    def decided(at: float, positive: str | None = None, **spec: Any) -> Decide | None:
        return decision_of(replace(TINY, **spec), at, positive=positive)

    hazards = {"classes": ("risk_score",), "task": "discrete_survival", "times": (1.0, 5.0)}
    assert decided(-3.5, classes=("value",), task="regression") == Decide(-3.5, 0.01, 0)
    assert decided(1.5, classes=("risk_score",), task="survival") == Decide(1.5, 0.01, 0)
    assert decided(0.5, "survival_5", **hazards) == Decide(0.5, 0.01, 2)
    assert decided(0.5, "c", task="ordinal") == Decide(0.5, 0.01, 1)
    for told, why in (
        ((1.5, "survival_5", hazards), "decide must lie between 0 and 1, found 1.5"),
        ((0.5, None, hazards), "--decide: which of risk_score, survival_1, survival_5[?] Name one"),
        (
            (0.5, "a", {"task": "ordinal"}),
            "--positive: the model tells nothing of 'a', but of b, c",
        ),  # all are at least a
        ((0.5, None, {"task": "multilabel"}), "--decide: which of a, b, c[?]"),
    ):
        at, positive, spec = told
        with pytest.raises(UsageError, match=why):
            decided(at, positive, **spec)


def test_what_was_decided_is_told_in_words_of_its_own() -> None:
    told = {"decided_at": 0.5, "risk": 0.01}
    row = {"decision": "at least 2 above", **told}
    assert decision_in_words(row) == "settled: P(at least 2) above 0.5 (risk 0.01)"
    row = {"decision": "survival_5 below", "survival_5": 0.2, "survival_5_low": 0.1, **told}
    assert decision_in_words(row) == "settled: survival_5 below 0.5 (risk 0.01)"


def test_how_much_of_a_patch_is_tissue_is_told_of_the_patch_that_was_read_where_it_was_moved_in_from_an_edge(
    tmp_path: Path,
) -> None:
    """Of tissue that ends at x = 804 and goes on to the lower edge, which no row of cells ends at."""
    image = tissue_pixels(1500, 900, margin=0.0)
    image[:, 804:] = 244
    slide = write_slide(tmp_path / "slide.tif", image, compression="deflate")
    model = save_untrained(tmp_path / "model.safetensors")
    found = pipeline.commands.predict(slide, model, mpp=0.5, samples=10_000)
    x, y, width, height = found.patch_boxes_level0.T
    last = (
        found.patch_cells // found.attention_raster.width == (found.patch_cells // found.attention_raster.width).max()
    )
    assert (y[last] + height[last] == 900).all()
    assert (y[last] % height[last] != 0).all(), "these were moved"
    tissue = np.clip((804 - x) / width, 0, 1)
    assert found.patch_tissue == pytest.approx(tissue, abs=0.3)  # its border is found to a pixel of the thumbnail
    assert (found.patch_tissue[tissue == 1] == 1).all()
    assert (found.patch_tissue < 1).any()
