"""How what is missing is installed: Saccade is on no package index, so that its extras come from its own folder."""

from __future__ import annotations


def from_folder(extra: str | None = None) -> str:
    """The command that brings all that Saccade needs, with the packages of an extra such as "timm"."""
    what = f"'.[{extra}]'" if extra else "."
    return f"in Saccade's folder, pip install -e {what}"
