"""Results as lines of JSON, one a trained model, so that a run goes on where it stopped and later ones add to it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a file; a last line that was cut short by a crash is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            records.append(json.loads(line))
    return records


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Add one record, with where and when it was made, and have the disk hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        path.write_text("".join(json.dumps(whole) + "\n" for whole in read_records(path)))
    with path.open("a") as file:
        file.write(json.dumps(record | {"made": provenance()}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def provenance() -> dict[str, Any]:
    """Time, commit, versions and machine of this run."""
    root = Path(__file__).resolve().parents[2]
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": asked.stdout.strip() or None,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": torch.get_num_threads(),
    }


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Chance that a positive scores above a negative (ties count half); NaN where one of them is missing."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not len(positive) or not len(negative):
        return float("nan")
    wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(wins)


def bootstrap(n: int, *, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Images drawn with replacement, (resamples, n); the same for every row of a table, so that differences pair."""
    return np.random.default_rng(seed).integers(n, size=(resamples, n))


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """2.5 and 97.5 % quantiles, NaNs left out."""
    low, high = np.nanquantile(np.asarray(values), (0.025, 0.975))
    return float(low), float(high)
