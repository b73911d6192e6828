"""Where the repository and the public data sets are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """Where the public data sets are: $SACCADE_DATA, or shared/data beside the repository."""
    return Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared/data"))
