"""A report draws the curves of whatever kind of label there is, and never text as markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from pipeline.report.curves import curves_section
from pipeline.report.labels import against_labels
from pipeline.statistics.metrics import evaluate
from pipeline.statistics.ordinal import evaluate_ordinal
from pipeline.statistics.regression import evaluate_regression
from pipeline.statistics.survival import evaluate_survival

N = 40
PEOPLE = [f"P{i // 2}" for i in range(N)]


def classes(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(N) % len(names))
    p = np.exp(rng.normal(size=(N, len(names))) + np.eye(len(names))[y])
    return y, p / p.sum(1, keepdims=True)


def titles(section: str) -> list[str]:
    return re.findall("<h4>(.*?)</h4>", section)


def test_of_two_classes_the_positive_one_is_drawn() -> None:
    y, p = classes(("normal", "tumour"))
    metrics = evaluate([("normal", "tumour")[i] for i in y], p, PEOPLE, ("normal", "tumour"))
    section = curves_section(metrics)
    assert titles(section) == ["ROC", "Precision and recall", "Calibration", "Decision curve"]
    counts = [str(one["slides"]) for one in metrics["curves"]["of"]["tumour"]["reliability"]["bins"]]
    assert re.findall('<text class="small"[^>]*>(.*?)</text>', section) == counts
    assert "Slides by label and prediction" in section
    line = re.search('<polyline class="line c0" points="(.*?)"/>', section)
    assert line is not None
    assert line[1].split()[0] == "48.0,206.0"  # (0, 0)
    assert line[1].split()[-1] == "230.0,8.0"  # (1, 1)


def test_of_more_classes_each_has_its_line_and_its_name_and_six_at_most_are_drawn() -> None:
    names = tuple(f"<b>{i}" for i in range(8))
    y, p = classes(names)
    section = curves_section(evaluate([names[i] for i in y], p, PEOPLE, names))
    ET.fromstring(f"<div>{section}</div>")  # well-formed: no name is taken for markup
    assert titles(section)[2] == "Calibration: &lt;b&gt;0"
    assert len(titles(section)) == 3 + 6
    assert "2 more are in the metrics" in section


def test_grades_values_and_survival_have_plots_of_their_own() -> None:
    y, p = classes(("G1", "G2", "G3"))
    ordinal = curves_section(evaluate_ordinal(y, p, PEOPLE, ("G1", "G2", "G3")))
    assert titles(ordinal) == ["ROC"]
    assert "G3 or above" in ordinal
    assert titles(curves_section(evaluate_regression(y, p[:, 2], PEOPLE))) == ["Predicted by true value"]
    survival = evaluate_survival(np.arange(N), y > 0, p[:, 0], [str(i) for i in range(N)])
    assert titles(curves_section(survival)) == ["Without the event, by risk"]
    assert "higher risk (20)" in curves_section(survival)


def test_metrics_of_whatever_kind_of_label_are_told_overall_and_by_site() -> None:
    y, p = classes(("G1", "G2", "G3"))
    sites = ["N" if i < 30 else "S" for i in range(N)]
    for metrics, told in (
        (evaluate_ordinal(y, p, PEOPLE, ("G1", "G2", "G3"), sites=sites), ("kappa", "MAE", "G1", "AUROC")),
        (evaluate_regression(y - 5.0, p[:, 2], PEOPLE, sites=sites), ("RMSE", "R²", "Spearman&#x27;s correlation")),
        (
            evaluate_survival(np.arange(N), np.arange(N) < 30, p[:, 0], [str(i) for i in range(N)], sites=sites),
            ("C-index", "too few to tell"),
        ),
    ):
        section = against_labels([], metrics, {})
        ET.fromstring(f"<div>{section}</div>")
        assert all(one in section for one in (*told, "By site"))


@pytest.mark.parametrize("metrics", [{}, {"curves": {}}, {"curves": {"of": {}}}])
def test_where_there_is_nothing_nothing_is_drawn(metrics) -> None:
    assert curves_section(metrics) == ""


def test_degenerate_data_is_drawn_too() -> None:
    """One value throughout, one patient, all censored."""
    for metrics in (
        evaluate_regression([1, 1], [1, 1], ["a", "b"]),
        evaluate_survival([0], [0], [1], ["a"]),
        evaluate(["a"], [[0.5, 0.5]], ["P"], ("a", "b")),
    ):
        ET.fromstring(f"<div>{curves_section(metrics)}</div>")
