"""docs/viewer.md: its commands run as they are written, and its keys are those of the page."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from makers import ROOT

PAGE = (ROOT / "docs" / "viewer.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]

pytest.importorskip("bokeh")


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_run(line: str, viewed: Path, second: Path, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(viewed, tmp_path / "out")
    shutil.copytree(second, tmp_path / "earlier")
    for folder in ("annotations", "moved/here", "heatmaps", "objects"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("heatmaps/even.npy", "objects/even.geojson"):
        (tmp_path / name).touch()
    shutil.copy(checkpoint, tmp_path / "moved" / "model.safetensors")
    program, *args = shlex.split(line.replace("/moved", "moved"))
    assert program == "saccade"
    if not {"--no-browser", "--static"} & set(args):
        args.append("--no-browser")
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipeline.cli import main; main()",
    ]
    process = subprocess.Popen(
        [*command, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    if "--static" in args:
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert (tmp_path / said).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        return
    try:
        with urllib.request.urlopen(said, timeout=30) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def test_its_keys_are_the_page_s() -> None:
    script = (ROOT / "pipeline" / "view" / "viewer.js").read_text(encoding="utf-8")
    [table] = re.findall(r"const keys = \{(.*?)\};", script, re.DOTALL)
    used = set(re.findall(r'(?:^|[\s,{])"?([^\s",]+?)"?: (?:\(\) =>|close|fit|full)', table)) - {"="}
    told = {key for row in re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE) for key in re.findall(r"`(.*?)`", row)}
    assert told == {"Esc" if key == "Escape" else key for key in used}
