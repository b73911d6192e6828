"""Where the public data sets are."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """$SACCADE_DATA, or shared/data beside the repository."""
    return Path(os.environ.get("SACCADE_DATA", Path(__file__).resolve().parents[2] / "shared/data")).resolve()
