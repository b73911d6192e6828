"""How predictions compare with the labels: what was taken for what, metrics, sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipeline.report.curves import curves_section
from pipeline.report.figures import MISSING, estimate, number
from pipeline.statistics.metrics import SCORES
from pipeline.statistics.power import power_in_words
from stages.amounts import apart, counted

NAMES = {
    "auroc": "AUROC",
    "auroc_within_folds": "AUROC within folds",
    "auprc": "AUPRC",
    "f1": "F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation",
    "c_index": "C-index",
    "c_index_within_folds": "C-index within folds",
}
HEADS = '<th scope="col" class="number">95 % interval</th><th scope="col">0 to 1</th></tr></thead>'


def is_wrong(row: Mapping[str, Any]) -> bool:
    """Whether a slide has a label, and another is predicted."""
    return agrees(row) is False


def agrees(row: Mapping[str, Any]) -> bool | None:
    """Whether a slide's label is predicted; None where it has none, or that is no question of yes or no."""
    if row.get("label") is None:
        return None
    told: bool | None = row.get("agrees", str(row["label"]) == str(row.get("predicted")))
    return told


def against_labels(
    done: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], not_counted: Mapping[str, int]
) -> str:
    """The section on labels; nothing where no slide has one.

    Args:
        done: rows of predicted slides; labelled ones have their ``label``, and ``not_counted`` where there is a reason.
        metrics, not_counted: of the run.
    """
    # by their names: a class may be called "value"
    told = [key for score in SCORES for key in (score, f"{score}_within_folds")]
    scores = {name: metrics[name] for name in told if isinstance(metrics.get(name), Mapping)}
    mistakes = _mistakes([row for row in done if agrees(row) is not None and not row.get("not_counted")])
    if not scores and not mistakes:
        return ""
    of = [counted(int(metrics[key]), key[:-1]) for key in ("slides", "patients") if number(metrics.get(key))]
    of += [f"not counted: {many} {why}" for why, many in not_counted.items()]
    of += [f"positive class: {metrics['positive']}"] if metrics.get("positive") else []
    lines = []
    for key, score in scores.items():
        name = NAMES.get(key, key.replace("_", " "))
        parts = estimate(score.get("value"), score.get("low"), score.get("high"), name)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{parts}</tr>')
    table = (
        '<div class="wide"><table class="narrow"><thead><tr><th scope="col">metric</th>'
        f'<th scope="col" class="number">value</th>{HEADS}<tbody>{"".join(lines)}</tbody></table></div>'
    )
    return (
        f'<h2>Against the labels</h2><p class="soft">{escape(", ".join(of))}</p>{mistakes}'
        f"{table if lines else ''}{_needed(metrics)}{curves_section(metrics)}"
        f"{_groups('site', metrics)}{_groups('fold', metrics)}"
    )


def _mistakes(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many predictions are the label, and what the others were taken for."""
    if not rows:
        return ""
    wrong = Counter((str(row["label"]), str(row.get("predicted"))) for row in rows if is_wrong(row))
    of_class = Counter(str(row["label"]) for row in rows)
    told = "; ".join(
        f"{many:,} of {of_class[label]:,} {apart(label)} predicted {apart(predicted)}"
        for (label, predicted), many in wrong.most_common()
    )
    right = len(rows) - wrong.total()
    return (
        f"<p><strong>The most probable class is the label of {right:,} of {counted(len(rows), 'slide')}</strong>"
        f"{escape(f'; wrong: {told}' if told else '')}.</p>"
    )


def _needed(metrics: Mapping[str, Any]) -> str:
    """How many patients a narrower interval would take, where it is wide."""
    told = power_in_words(metrics)
    return f'<p class="soft">{escape(told[0].upper() + told[1:])}.</p>' if told else ""


def _groups(kind: str, metrics: Mapping[str, Any]) -> str:
    """What says first how good predictions are, of each site or fold; or that there is none."""
    lines, first = [], next((key for key in SCORES if key in metrics), "")
    for name, one in (metrics.get(f"{kind}s") or {}).items():
        score, counts = one[first], one.get("slides_per_class") or {}
        slides = ", ".join(f"{many:,} {apart(label)}" for label, many in counts.items()) or f"{one['slides']:,}"
        parts = estimate(score["value"], score["low"], score["high"], str(name))
        if score["value"] is None:
            why = "one class only" if counts else "too few to tell"
            parts = f'<td class="number">{MISSING}</td><td class="number">{MISSING}</td><td>{why}</td>'
        lines.append(f'<tr><th scope="row">{escape(name)}</th><td>{escape(slides)}</td>{parts}</tr>')
    if not lines:
        return ""
    return (
        f'<h3>By {kind}</h3><div class="wide"><table class="narrow"><thead><tr><th scope="col">{kind}</th>'
        f'<th scope="col">slides</th><th scope="col" class="number">{escape(NAMES.get(first, first))}</th>{HEADS}'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
