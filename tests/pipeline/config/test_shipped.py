"""Configurations that are shipped: each loads, and its header says what for, by which command, and how long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config import load_config

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))
NOT_OF_TRAINING = ("distil.yaml",)


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.name not in NOT_OF_TRAINING], ids=lambda path: path.stem)
def test_a_shipped_configuration_loads(path: Path) -> None:
    assert load_config(path).cohort.table.suffix == ".csv"


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.name != "default.yaml"], ids=lambda path: path.stem)
def test_a_header_says_by_which_command_and_how_long(path: Path) -> None:
    header = "".join(line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    assert re.search(r"(saccade|python) [a-z]", header)
    assert re.search(r"minute|hour|day", header)
