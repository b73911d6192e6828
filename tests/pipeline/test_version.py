"""The version, wherever the code lies."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from makers import ROOT

from pipeline import version as tested


def missing(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def test_an_installation_says_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "version", {"saccade-wsi": "7.8.9"}.__getitem__)  # never the project `saccade`
    assert tested.saccade_version() == "7.8.9"


def test_a_checkout_that_was_never_installed_has_its_projects_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "version", missing)
    assert tested.saccade_version() == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.match(r"\d+\.\d+", tested.saccade_version())


@pytest.mark.parametrize("project", [None, "not TOML", "[project]", "[project]\nname = 'theirs'\nversion = '1.0'"])
def test_a_bare_copy_knows_no_version(project: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it take that of the project that it was copied into."""
    monkeypatch.setattr(tested, "version", missing)
    monkeypatch.setattr(tested, "__file__", str(tmp_path / "pipeline" / "version.py"))
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(project)
    assert tested.saccade_version() == "unknown"
