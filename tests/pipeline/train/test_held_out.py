"""How good held-out slides were told, of repeated cross-validations too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.model.quality import Quality
from pipeline.report.training import write_training_report
from pipeline.task.build import TASKS
from pipeline.task.task import Task
from pipeline.train.held_out import scored

KINDS = {
    "classification": TASKS["classification"](("no", "yes"), ("verdict",)),
    "multilabel": TASKS["multilabel"](("x", "y"), ("x", "y")),
    "ordinal": TASKS["ordinal"](("1", "2", "3"), ("grade",)),
    "regression": TASKS["regression"](("value",), ("amount",)),
    "survival": TASKS["survival"](("risk_score",), ("time", "event")),
}


def rows(task: Task, *, repeats: int) -> list[dict[str, Any]]:
    """Of 24 patients at two sites, predicted by three folds of each repeat; the second site's only in the first."""
    rng = np.random.default_rng(0)
    told = []
    for repeat in range(repeats):
        for i in range(24):
            cells = {
                "classification": ["no", "yes"][i % 2 : i % 2 + 1],
                "multilabel": [str(i % 2), str(i // 2 % 2)],
                "ordinal": [str(i % 3 + 1)],
                "regression": [str(i * 0.5)],
                "survival": [str(i + 1), str(i % 2)],
            }[task.kind]
            values = rng.dirichlet(np.ones(len(task.values))) if task.chances else rng.normal(size=len(task.values))
            fold = f"fold-{(i + repeat) % 3}" + (f"-repeat-{repeat}" if repeat else "")
            about = {"patient": f"p{i}", "site": "north" if i < 20 else "south", "fold": fold, "repeat": repeat}
            if repeat and about["site"] == "south":
                continue  # could not be read any more
            told.append(about | task.label_row(cells) | task.row(values.tolist(), values.tolist(), values.tolist()))
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_folds_of_every_repeat_are_told_and_shown(kind: str, tmp_path: Path) -> None:
    task = KINDS[kind]
    told = rows(task, repeats=2)
    found = scored(told, task)
    names = [f"fold-{i}" for i in range(3)] + [f"fold-{i}-repeat-1" for i in range(3)]
    assert list(found["folds"]) == names
    for repeat in range(2):
        alone = scored([row for row in told if row["repeat"] == repeat], task)
        assert {name: found["folds"][name] for name in alone["folds"]} == alone["folds"]
        assert found["repeats"][task.metric.key][repeat] == alone[task.metric.key]["value"]
    assert list(found["sites"]) == ["north"]  # a mean over the repeats is of what all of them have
    page = tmp_path / "report.html"
    write_training_report(
        page, {"cross-validation": found}, Quality("unclear", "why"), parts={"cross-validation": 24}, threshold=[]
    )
    text = page.read_text()
    assert all(f'<th scope="row">{name}</th>' in text for name in names)
