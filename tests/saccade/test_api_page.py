"""docs/api.md is what its tool builds from the docstrings."""

from __future__ import annotations

import subprocess
import sys

import pytest
from makers import ROOT

import saccade

PAGE = ROOT / "docs" / "api.md"


def test_the_page_is_what_the_docstrings_say() -> None:
    pytest.importorskip("griffe2md", reason="the API page cannot be checked without griffe2md (the dev extra has it)")
    done = subprocess.run([sys.executable, ROOT / "docs" / "build_api.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_has_every_public_name() -> None:
    headings = [line.strip("#` ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("## `")]
    assert headings == [name for name in saccade.__all__ if name != "__version__"]
