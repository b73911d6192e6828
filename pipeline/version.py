"""Which Saccade this is."""

from __future__ import annotations

import hashlib
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "saccade-wsi"
"""What is installed; `saccade` on PyPI is another project."""


def saccade_version() -> str:
    """The installed distribution's version; of a checkout that was never installed, its pyproject.toml's.

    "unknown" where neither is there, as in a copy of the bare packages.
    """
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        pass
    try:
        project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))[
            "project"
        ]
    except (OSError, ValueError, KeyError):
        return "unknown"
    ours = str(project.get("name")).startswith("saccade")
    return str(project["version"]) if ours and "version" in project else "unknown"


def code_digest() -> str:
    """SHA-256 of the source of our packages as it lies here: checkouts of one version may differ."""
    home, digest = Path(__file__).parent.parent, hashlib.sha256()
    for package in ("saccade", "pipeline", "stages"):
        for path in sorted((home / package).rglob("*.py")):
            digest.update(path.relative_to(home).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
