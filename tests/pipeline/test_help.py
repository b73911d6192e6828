"""Help as a terminal of 80 columns shows it."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from pipeline.cli.assembly import app


def told(*arguments: str) -> str:
    return CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "80"}, prog_name="saccade").stdout


def test_no_command_s_summary_is_cut() -> None:
    commands = told().partition("Commands:\n")[2]
    assert "  run " in commands
    assert "..." not in commands


def test_what_check_does_with_its_findings_and_how_it_works_stand_apart() -> None:
    page = told("check")
    found = re.findall(r"^(?:(\w[^:\n]*):|  (--[a-z-]+).*)$", page.partition("--help")[2], re.MULTILINE)
    assert [topic or option for topic, option in found] == [
        *("What becomes of it", "--json", "--csv", "--fix-template"),
        *("Machine", "--workers", "--limit"),
    ]


@pytest.mark.parametrize("command", ["run", "bench"])
def test_options_stand_under_topics_what_is_seldom_needed_last(command: str) -> None:
    page = told(command)
    assert re.findall(r"^(\w[^:\n]*):$", page, re.MULTILINE)[-2:] == ["Machine", "Seldom needed"]
    assert "--device" in page.partition("Machine:")[2].partition("Seldom needed:")[0]
    options = re.findall(r"^  (--[a-z-]+)", page, re.MULTILINE)
    assert len(options) == len(set(options))
    assert "--features" in options
