"""Whatever the compiler is, an installation goes on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from makers import ROOT

BUILDER = "hatchling.builders.hooks.plugin.interface"
"""Of what installs Saccade; where it is installed it need not be."""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with no flags of whoever runs the tests."""
    monkeypatch.setitem(sys.modules, BUILDER, SimpleNamespace(BuildHookInterface=list))
    for name in ("CC", "CPPFLAGS", "CFLAGS", "LDFLAGS"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("hook", ROOT / "native" / "hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variable_is_as_good_as_none(hook: ModuleType, monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    """As make has it: scripts say `CC= pip install`."""
    without = hook.compile_library(Path("/nowhere/library.so"))
    monkeypatch.setenv("CC", empty)
    assert hook.compile_library(Path("/nowhere/library.so")) == without


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        ("#!/bin/sh\nprintf 'error: nicht m\\366glich\\n' >&2\nexit 1\n", "error: nicht m\ufffdglich"),  # in Latin 1
        ("#!/bin/sh\nexit 3\n", "compiler failed"),
        ("#!/bin/sh\ntouch $(echo $* | sed 's/.*-o //; s/ .*//')\n", "it does not load"),
        ("\x7fELF of another machine", "does not run"),
        (None, "no C compiler"),
    ],
)
def test_a_compiler_that_compiles_nothing_is_told_of(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str | None, why: str
) -> None:
    """In a line, whatever it does."""
    path = tmp_path / "compiler"
    if compiler is not None:
        path.write_text(compiler)
        path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    assert why in hook.compile_library(tmp_path / "library.so")


def test_a_quotation_without_an_end_is_told_of(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CFLAGS", '-DA="b')
    assert "No closing quotation" in hook.compile_library(tmp_path / "library.so")
