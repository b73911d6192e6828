"""Settings that would do nothing, or leave nothing to see, are refused in words that name the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["augmentation.stain=0.3"], "augmentation.stain has no effect on a frozen encoder"),
        (["augmentation.scale=1.25"], "augmentation.scale has no effect on a frozen encoder"),
        (
            ["attention.kind=learned", "encoder.name=small", "augmentation.noise=0.1"],
            "noise has no effect on an encoder",
        ),
        (["training.precision=bf16-mixed"], "is for an encoder that learns; .*, and see encoder.precision"),
        (
            ["training.read_ahead=2"],
            "read_ahead is for an encoder that learns and attention of one level: leave it out",
        ),
        (["attention.coarse_mpp=32"], "leaves 4 pixels of a cell to see; give at most 16"),
        (["attention.context=[]"], "attention.context: expected a list of values"),
        (["cohort.time=t", "cohort.event=e", "cohort.positive=x"], "c.yaml: cohort: cohort.positive is of two classes"),
        (["cohort.unit=patient", "training.compare=true"], "c.yaml: cohort.unit: patient does without"),
        (["attention.uniform=1"], "expected a number above 0 and below 1, found 1"),
    ],
)
def test_it_is_refused(tmp_path: Path, changes: list[str], said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("cohort: {table: t.csv}\n")
    with pytest.raises(UsageError, match=said):
        load_config(path, changes)
    load_config(path, ["augmentation.noise=0.1"])
