"""The record of a run: what was asked, what came of it, which versions on which machine made it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.output.documents import write_json
from pipeline.version import saccade_version

NOTICE = "For research only: Saccade is not a medical device."
"""Said wherever results may travel without their README."""
_PACKAGES = (
    *("torch", "openslide-python", "openslide-bin", "zarr", "dask", "distributed"),
    *("numpy", "scikit-image", "tifffile", "imagecodecs", "h5py", "timm"),
)


def title_of(run: Mapping[str, Any]) -> str:
    """What was predicted by which model, as far as a run's record says; empty where it says nothing."""
    by = f"predicted by the model '{run['model']}'" if run.get("model") else ""
    return ", ".join(part for part in (str(run.get("cohort") or ""), by) if part)


def write_run(path: Path, run: Mapping[str, Any]) -> None:
    """Write run.json: ``run`` and which versions on which machine made it."""
    write_json(path, {"program": "saccade", "notice": NOTICE, **run, "versions": versions(), "machine": machine()})


@lru_cache(maxsize=1)  # asking takes 60 ms, and the record is written again and again
def versions() -> dict[str, str | None]:
    """Versions of this package and of what its results depend on; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "saccade": saccade_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """What this process runs on."""
    return {"name": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()}
