"""docs/exports.md: its commands run as they are written, and it has every format."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from makers import ROOT, saccade

from pipeline.export.formats import FORMATS

PAGE = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_run(line: str, ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran, tmp_path / "out")
    program, *args = shlex.split(line.replace("slide7", "odd"), comments=True)
    assert program == "saccade"
    done = saccade(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_it_tells_of_every_format() -> None:
    assert [name for name in FORMATS if f"| `{name}` |" not in PAGE] == []
