"""What a worker elsewhere must have before it gets a slide: the folder, the model and the device of the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.device import find_device
from pipeline.errors import UsageError
from pipeline.model.header import model_digest
from pipeline.output.folder import MARK
from stages.passing import again


def lacks(out: Path, model: Path, digest: str, files: Sequence[Path], device: str) -> str | None:
    """What keeps this machine from working for a run elsewhere, and what to do; None: nothing.

    Args:
        out: the run's folder, which is there where the run was started: one made here would be another.
        model: its checkpoint.
        digest: its `model_digest`, where the run was started.
        files: others that are readable there.
        device: to compute on.
    """
    if not (out / MARK).is_file():
        return f"does not have the folder {out}: mount it there at the same path"
    if not os.access(out, os.W_OK | os.X_OK):
        return f"cannot write to {out}: run it as a user who may"
    for file in (model, *files):
        if not os.access(file, os.R_OK):
            there = "cannot read" if file.exists() else "does not have"
            return f"{there} {file}: mount it there at the same path, readable"
    if again(lambda: model_digest(model)) != digest:
        return f"has another file at {model}: give a model that all machines see"
    try:
        find_device(device)
    except UsageError as exc:
        return str(exc)
    return None
