"""The command as its users meet it: real processes, exit codes, one line of error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from makers import ROOT, saccade, tissue_pixels, write_slide

from pipeline import cli
from pipeline.progress import Progress
from pipeline.version import saccade_version


def test_info_for_people_and_for_programs(slides_folder: Path) -> None:
    told = saccade("info", slides_folder / "odd.tif")
    assert told.returncode == 0
    assert "0.5 x 0.5 µm/px (file)" in told.stdout
    assert "1803 x 2401 px" in told.stdout
    facts = json.loads(saccade("info", slides_folder / "odd.tif", "--json").stdout)
    assert [(level["width"], level["height"]) for level in facts["levels"]] == [(1803, 2401), (450, 600)]
    assert facts["levels"][1]["downsample"] == [4, 4]
    assert facts["warnings"] == []


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_name_that_the_terminal_cannot_show_is_escaped(slides_folder: Path, tmp_path: Path, form: list[str]) -> None:
    """As in a Windows console, or in a file that its output goes to."""
    slide = tmp_path / "組織.tif"
    slide.write_bytes((slides_folder / "plain.tif").read_bytes())
    command = [sys.executable, "-m", "pipeline.cli", "info", str(slide), *form]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="cp1252")
    assert done.returncode == 0, done.stderr
    assert "\\u7d44\\u7e54.tif" in done.stdout


def test_info_warns_of_what_will_bite(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a slide.tif", tissue_pixels(300, 300), mpp=None, levels=1)
    assert "--mpp" in saccade("info", slide).stdout
    assert "0.25 x 0.25 µm/px (override)" in saccade("info", slide, "--mpp", 0.25).stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["info", "missing.svs"], "no such file"),
        (["run", ".", "--out", "out", "--model", "missing.safetensors"], "no slides in"),
        (["run", "missing", "--out", "out", "--model", "missing.safetensors"], "no such file or folder"),
        (["train", "missing.yaml", "--out", "out"], "missing.yaml"),
        (["train", "bad.yaml", "--out", "out"], "did you mean 'view.patch_px'?"),
        (["train", "good.yaml", "--out", "out", "--set", "view.patch_pz=3"], "did you mean 'view.patch_px'?"),
        (["cache", "empty", "--out", "out"], "no slides in"),
    ],
)
def test_wrong_usage_is_one_line_with_the_remedy_and_exit_code_2(tmp_path: Path, args: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("cohort: {table: cohort.csv}\nview: {patch_pixels: 256}\n")
    (tmp_path / "good.yaml").write_text("cohort: {table: cohort.csv}\n")
    done = saccade(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("saccade: error: ")
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in saccade("info", tmp_path / "missing.svs", "--debug").stderr
    assert "Traceback" in saccade("--debug", "info", tmp_path / "missing.svs").stderr


def test_an_unknown_option_exits_2() -> None:
    done = saccade("run", "--modle", "x")
    assert done.returncode == 2
    assert "--modle" in done.stderr


def test_the_version_is_told_without_a_command() -> None:
    done = saccade("--version")
    assert (done.returncode, done.stdout) == (0, f"saccade {saccade_version()}\n")


def test_no_arguments_show_the_help() -> None:
    assert "Commands" in saccade().stdout + saccade().stderr


def test_an_output_folder_that_cannot_be_is_refused(slides_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = saccade("cache", slides_folder, "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "choose another --out" in done.stderr
    assert (tmp_path / "file").read_text() == "in the way"


def test_run_reads_on_until_it_is_sure_enough(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    slide = slides_folder / "plain.tif"
    done = saccade("run", slide, "--model", checkpoint, "--out", tmp_path / "out", "--tolerance", 1e-5)
    assert done.returncode == 0, done.stderr
    commit = json.loads((tmp_path / "out" / "slides" / "plain" / "prediction.json").read_text())
    row = commit["row"]
    assert row["patches_read"] > 16  # the model's own budget leaves more open
    for name in ("normal", "tumour"):
        assert row[f"prob_{name}"] - row[f"prob_{name}_low"] <= 1e-5
        assert row[f"prob_{name}_high"] - row[f"prob_{name}"] <= 1e-5


def test_cache_then_cache_again(slides_folder: Path, tmp_path: Path) -> None:
    first = saccade("cache", slides_folder, "--out", tmp_path / "cache")
    assert first.returncode == 0, first.stderr
    names = sorted(path.name for path in (tmp_path / "cache").glob("*.zarr"))
    assert names == ["even.ome.zarr", "odd.ome.zarr", "plain.ome.zarr"]
    assert "vendor" in saccade("info", tmp_path / "cache" / "odd.ome.zarr").stdout
    assert saccade("cache", slides_folder, "--out", tmp_path / "cache").returncode == 0


def test_cache_reports_bad_slides_and_does_the_rest(slides_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    (folder / "good.tif").write_bytes((slides_folder / "even.tif").read_bytes())
    (folder / "bad.svs").write_text("not a slide")
    done = saccade("cache", folder, "--out", tmp_path / "cache")
    assert done.returncode == 1
    assert "bad: failed: not a whole-slide image" in done.stderr
    assert (tmp_path / "cache" / "good.ome.zarr").is_dir()


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A real interrupt after the first slide, then the same command: the first slide is not done again."""
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "run",
        slides_folder,
        "--model",
        checkpoint,
        "--out",
        tmp_path / "out",
    ]
    running = subprocess.Popen(
        list(map(str, command)),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where tests run in the background it is off
    )
    assert running.stderr is not None
    for line in running.stderr:
        if " [1/3] " in line:
            break
    running.send_signal(signal.SIGINT)
    rest = running.stderr.read()
    running.stderr.close()
    assert running.wait() == 130
    assert "the same command goes on" in rest
    again = saccade(*command[3:])
    assert again.returncode == 0, again.stderr
    assert "(0 already done)" not in again.stdout


@pytest.mark.parametrize(("told", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(told: str | None, found: str) -> None:
    """Torch's threads spin by default, which starves them on a machine that others use, too."""
    code = "import os, sys; sys.argv = ['saccade', '--version']\nfrom pipeline.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules\n"
    code += "print(os.environ['OMP_WAIT_POLICY'])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": told} if told else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == found


def test_no_name_of_a_file_gives_the_terminal_orders(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress("predicting") as progress:
        progress(1, 2, "a\x1b]0;title\x07\nb\udcff: ok")
    cli._echo("path \x1b[31mred\nnext line")
    shown = capfd.readouterr()
    assert shown.err.partition(" ")[2] == "[1/2] a\\x1b]0;title\\x07\\nb\\udcff: ok\n"
    assert shown.out == "path \\x1b[31mred\nnext line\n"
