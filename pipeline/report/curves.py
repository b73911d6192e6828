"""What a report draws of metrics: ROC, precision and recall, calibration, net benefit, confusion, survival, values."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from pipeline.report.plots import Plot

ABOUT = {
    "calibration": "Calibration: a bar shows how many slides were given about that probability, a point which share of "
    "them truly are of the class, with its 95 % interval.",
    "benefit": "Net benefit, of acting on each slide whose probability reaches the threshold: true positives less "
    "false positives, the latter weighed by the odds of the threshold, per slide. The thin lines are of acting on "
    "every slide, and on none.",
}
_SHOWN = 6
"""Classes or labels that a plot shows at most: those that come first."""


def curves_section(metrics: Mapping[str, Any]) -> str:
    """Plots of what `pipeline.statistics` gives under "curves"; nothing where there are none."""
    curves = metrics.get("curves") or {}
    of: Mapping[str, Any] = dict(list((curves.get("of") or {}).items())[:_SHOWN])
    plots = []
    if of:
        plots.append(_roc(of))
    if any("precision_recall" in one for one in of.values()):
        plots += [_precision_recall(of), *(_calibration(name, one, len(of)) for name, one in of.items()), _benefit(of)]
    if curves.get("by_risk"):
        plots.append(_survival(curves["by_risk"]))
    if curves.get("pairs"):
        plots.append(_values(curves["pairs"]))
    plots = [plot for plot in plots if plot]
    table = _confusion(curves["confusion"]) if curves.get("confusion") else ""
    if not plots and not table:
        return ""
    about = " ".join(ABOUT.values()) if any("reliability" in one for one in of.values()) else ""
    left_out = len(curves.get("of") or {}) - len(of)
    about += f" {left_out} more are in the metrics." if left_out else ""
    told = f'<p class="soft">{escape(about.strip())}</p>' if about else ""
    return f'<div class="plots">{"".join(plots)}</div>{told}{table}'


def _roc(of: Mapping[str, Any]) -> str:
    plot = Plot("ROC", "1 - specificity", "sensitivity")
    plot.guide((0, 1), (0, 1))
    for name, one in of.items():
        plot.line(one["roc"]["false_positive_rate"], one["roc"]["sensitivity"], name=name)
    return plot.svg("ROC: " + ", ".join(f"AUROC of {name} {one['roc']['auroc']:.3f}" for name, one in of.items()))


def _precision_recall(of: Mapping[str, Any]) -> str:
    plot = Plot("Precision and recall", "recall", "precision")
    for name, one in of.items():
        plot.line(one["precision_recall"]["recall"], one["precision_recall"]["precision"], name=name)
    return plot.svg(f"Precision by recall of {', '.join(of)}")


def _calibration(name: str, one: Mapping[str, Any], many: int) -> str:
    told = one["reliability"]
    bins = told["bins"]
    plot = Plot("Calibration" + (f": {name}" if many > 1 else ""), "predicted probability", "share that are")
    plot.counts([(b["from"], b["to"]) for b in bins], [b["slides"] for b in bins], "slides")
    plot.guide((0, 1), (0, 1))
    xs = [b["probability"] for b in bins]
    plot.whiskers(xs, [b["low"] for b in bins], [b["high"] for b in bins])
    plot.dots(xs, [b["share"] for b in bins])
    return plot.svg(
        f"Calibration of {name}: Brier score {told['brier']:.3f}, calibration error {told['calibration_error']:.3f}"
    )


def _benefit(of: Mapping[str, Any]) -> str:
    highest = max(max(one["decision"]["net_benefit"]) for one in of.values())
    plot = Plot("Decision curve", "threshold probability", "net benefit", y_range=(-0.05, max(1.1 * highest, 0.05)))
    plot.guide((0, 1), (0, 0))
    for name, one in of.items():
        told = one["decision"]
        # acting on all falls without end: drawn down to the lower edge
        shown = [i for i, benefit in enumerate(told["act_on_all"]) if benefit > -0.05]
        plot.guide([told["threshold"][i] for i in shown], [told["act_on_all"][i] for i in shown])
        plot.line(told["threshold"], told["net_benefit"], name=name)
    return plot.svg(f"Net benefit by threshold probability of {', '.join(of)}")


def _survival(halves: Mapping[str, Any]) -> str:
    known = {name: one for name, one in halves.items() if one}
    if not known:
        return ""
    last = max(one["time"][-1] for one in known.values())
    plot = Plot("Without the event, by risk", "time", "share", x_range=(0, last))
    for name, one in known.items():
        plot.line(one["time"], one["share"], name=f"{name} risk ({one['patients']:,})", steps=True)
    return plot.svg("Share of patients without the event by time, of the half with the lower risk and of the other")


def _values(told: Mapping[str, Any]) -> str:
    every = [*told["value"], *told["predicted"]]
    ends = (min(every), max(every))
    plot = Plot("Predicted by true value", "value", "predicted", x_range=ends, y_range=ends)
    plot.guide(ends, ends)
    plot.dots(told["value"], told["predicted"])
    return plot.svg("Predicted value by true value")


def _confusion(found: Mapping[str, Any]) -> str:
    """What was taken for what, as a table: slides of each class by what they are predicted to be."""
    names = [escape(str(name)) for name in found["classes"]]
    heads = "".join(f'<th scope="col" class="number">predicted {name}</th>' for name in names)
    lines = []
    for row, (name, counts) in enumerate(zip(names, found["counts"], strict=True)):
        told = [f"<strong>{count:,}</strong>" if column == row else f"{count:,}" for column, count in enumerate(counts)]
        cells = "".join(f'<td class="number">{count}</td>' for count in told)
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        '<div class="wide"><table class="narrow"><caption>Slides by label and prediction</caption><thead><tr>'
        f'<th scope="col">label</th>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )
