"""The folder that a command writes to: ours by its mark, so that what another program wrote is never replaced."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.output.documents import write_json

MARK = ".saccade"
"""File that marks a folder as an output of ours."""

_OUTPUT_NAMES = (
    *("run.json", "predictions.csv", "report.html", "slides"),
    *("metrics.json", "model.safetensors", "splits.csv"),
)


def prepare_output(out: Path) -> None:
    """Make ``out`` an output folder of ours, by really writing to it.

    Raises:
        UsageError: it cannot be written, or holds results of another program.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not is_output(out):
            foreign = [name for name in _OUTPUT_NAMES if os.path.lexists(out / name)]
            if foreign:
                raise UsageError(
                    f"{out} already has a {foreign[0]!r} that saccade did not write; choose an --out folder of its own"
                )
        write_json(out / MARK, {"program": "saccade"})
    except OSError as exc:
        raise UsageError(f"cannot write to {out}: {exc.strerror}; choose another --out or make it writable") from exc


def is_output(folder: Path) -> bool:
    """Whether `prepare_output` made this folder."""
    return os.path.isfile(folder / MARK)
