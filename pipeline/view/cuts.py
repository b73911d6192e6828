"""What the page of all slides can be cut down to: by class, by status, by how sure a prediction is."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.refer.label_set import REFER
from pipeline.report.figures import number
from pipeline.task.task import Task
from pipeline.view.against import Against
from pipeline.view.run_folder import RunFolder, SlideRow

Choices = Sequence[tuple[str, str]]
"""What a choice is called in the page, and in words."""
WIDTHS = (0.05, 0.1, 0.2, 0.4)
"""Widths of intervals of probabilities that the table can be cut down to."""
CHANCES = (0.6, 0.75, 0.9, 0.99)
"""Probabilities of what is predicted that it can be cut down to."""
KINDS = {
    "wrong": "prediction is not the label",
    "referred": "referred",
    "undecided": "not settled",
    "unlike": "unlike the training",
    "warned": "with a warning",
    "seen": "seen in the training",
    "ok": "predicted",
    "failed": "failed",
    "waiting": "waiting",
    "called": "called",
    "otherwise": "predicted otherwise by the other run",
    "alone": "only in this run",
}


def kinds_of(slide: SlideRow, against: Against | None = None) -> list[str]:
    """What the table can be cut down to, as far as it holds of a slide."""
    row = slide.row
    found = {
        "called": bool(row.get("call")) and row["call"] != REFER,
        "otherwise": against is not None and against.otherwise(slide),
        "alone": against is not None and slide.number not in against.slides,
        "wrong": bool(slide.wrong),
        "referred": row.get("call") == REFER,
        "undecided": row.get("decision") == "undecided",
        "unlike": (number(row.get("out_of_distribution")) or 0.0) > 1,
        "warned": bool(row.get("warnings")),
        "seen": bool(row.get("seen")),
        str(row.get("status")): True,
    }
    return [kind for kind in KINDS if found.get(kind)]


def sureness_of(slide: SlideRow, task: Task) -> tuple[float | None, float | None]:
    """How sure a prediction is: the probability of what is predicted, and the widest interval of a value that is told;
    None where nobody says."""
    told = [slide.values[name] for name in task.values if name in slide.values]
    widths = [high - low for _, low, high in told if low is not None and high is not None]
    predicted = str(slide.row.get("predicted") or "")
    chance = slide.values[predicted][0] if task.chances and predicted in slide.values else None
    return chance, max(widths, default=None)


def doubts_there(run: RunFolder) -> Choices:
    """What the table is cut down to by how sure predictions are, and in how many slides each is."""
    if not run.task.chances:
        return []
    every = [sureness_of(one, run.task) for one in run.slides]
    chances = [chance for chance, _ in every if chance is not None]
    widths = [width for _, width in every if width is not None]
    choices = [
        (f"below {at}", f"probability below {at:g} ({sum(one < at for one in chances):,})") for at in CHANCES if chances
    ]
    choices += [
        (f"wider {at}", f"interval wider than {at:g} ({sum(one > at for one in widths):,})") for at in WIDTHS if widths
    ]
    return choices


def kinds_there(run: RunFolder, against: Against | None) -> Choices:
    """Those of `KINDS` that hold of some slide, and of how many."""
    every = [kind for one in run.slides for kind in kinds_of(one, against)]
    return [(kind, f"{words} ({every.count(kind):,})") for kind, words in KINDS.items() if kind in every]


def classes_there(run: RunFolder) -> Choices:
    """What is predicted, and of how many slides."""
    if not run.task.chances:
        return []
    every = [str(one.row.get("predicted") or "") for one in run.slides]
    return [(name, f"{name} ({every.count(name):,})") for name in dict.fromkeys(sorted(every)) if name]
