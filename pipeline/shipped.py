"""The configurations that come with the program."""

from __future__ import annotations

from pathlib import Path


def shipped_config(name: str) -> Path:
    """Path of one of them, e.g. ``demo.yaml``: a wheel has them beside this file, a checkout at its top."""
    here = Path(__file__).parent
    packaged = here / "configs"
    return (packaged if packaged.is_dir() else here.parent / "configs") / name
