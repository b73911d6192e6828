"""Every command and example in the README and the pages of docs/ runs as it is written, or it says here why not."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from makers import ROOT, tissue_pixels, write_slide
from pages import LANGUAGES, PAGES, blocks, mentions, text_of

ELSEWHERE = {
    "docs/api.md": {"": "tests/saccade/test_doctests.py"},
    "docs/dicom.md": {
        "import highdicom": "tests/pipeline/export/test_docs.py",
        "from wsidicom": "tests/pipeline/export/test_docs.py",
    },
    "docs/exports.md": {"": "tests/pipeline/export/test_docs.py"},
    "docs/study.md": {"": "tests/docs/test_study.py"},
    "docs/viewer.md": {"": "tests/pipeline/view/test_docs.py"},
    "docs/clusters.md": {"openssl req": "tests/test_clusters.py"},
}
"""Of a page, blocks that begin so are run by another test."""
NOT_RUN = {
    "CONTRIBUTING.md": {
        "git clone": "from wherever the repository is",
        "cd saccade": "a part of that",
        "make test": "the suite that this is in",
        ".venv/bin/python -m pytest": "a part of it, and more than all of it",
    },
    "README.md": {
        "make ": "a whole demo or suite each: what checks every change runs them",
        "python3 -m venv": "sets up an environment",
        ".venv/bin/": "installs from the network",
        "saccade demo": "minutes: the same check runs it whole, from the wheel",
        "saccade distil": "tests/pipeline/distil/test_distil.py does, on bags; its configuration names the user's own",
        "saccade view": "it serves until Ctrl-C: tests/pipeline/view/test_docs.py",
        "saccade export": "tests/pipeline/export/test_docs.py",
    },
    "docs/clusters.md": {
        "saccade run SLIDES --model M --out OUT --scheduler tcp://HOST:8786": "tests/pipeline/run/test_scheduler.py",
        "dask ": "`test_a_scheduler_and_a_worker_by_hand`, with the line after them",
        "saccade run SLIDES --model M --out OUT --scheduler sched.json": "the same",
    },
    "docs/dicom.md": {
        "pip install": "installs from the network",
        "saccade export": "needs highdicom: tests/pipeline/export/test_maps.py",
    },
    "docs/encoders.md": {
        "saccade encoders uni2-h --weights FOLDER": "gigabytes under a licence: tests/stages/encoder/ loads others",
        "saccade encoders model.onnx": "needs onnxruntime: tests/pipeline/test_encoders.py",
    },
    "docs/ome-zarr.md": {
        "pip install": "installs from the network",
        "saccade cache SLIDES --out s3://": "tests/cases/test_object_storage.py, on an S3 server of its own",
        "saccade run s3://": "tests/cases/test_object_storage.py",
        "saccade info https://": "tests/cases/test_object_storage.py",
    },
    "docs/real-tissue.md": {"python benchmarks/": "minutes to hours each: the page has what they printed"},
}
"""Of a page, commands that begin so are not run, and why."""
MEANT = {
    "SLIDES": "new-slides",
    "SLIDE": "slides/a.svs",
    "M": "model",
    "OUT": "out",
    "TABLE": "unseen.csv",
    "CONFIG": "config.yaml",
    "cache/": "pyramids/",
}
"""What stands for what a reader puts in."""
QUICKLY = {
    **{name: ["--workers", "0"] for name in ("check", "run", "cache")},  # other processes would load torch anew
    "bench": ["--draws", "2"],
}
"""What is added to commands, which saves time and nothing else."""
OTHERS = ("--nthreads", "--resources", "--memory-limit", "--no-crop", "--tails", "--show")
"""Options of dask, QuPath and scripts that a page names without their program."""
SHORT = """
attention: {kind: learned}
encoder: {name: small, dim: 8}
view: {patch_px: 64}
sampling: {samples: 8}
training: {epochs: 1, warm_up: 0, folds: 2, batch_size: 4, calibration_slides: 2, device: cpu}
"""
"""Makes a training take seconds: no pretrained encoder, one epoch, two folds."""


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's reader has: its table, longer by the same kind of rows, its configuration, slides, others."""
    folder = tmp_path_factory.mktemp("desk")
    [table] = blocks("README.md", "csv")
    [config] = blocks("README.md", "yaml")
    header, *rows = table.text.splitlines()
    rows += [row.replace(".svs,p", f"{k}.svs,p{k}") for k in range(1, 5) for row in rows]
    unseen = [f"new-slides/{name}.svs,{name},{label}" for name, label in (("x", "tumour"), ("y", "normal"))]
    for name, some in (("cohort.csv", rows), ("unseen.csv", unseen)):
        (folder / name).write_text("\n".join((header, *some, "")))
    (folder / "config.yaml").write_text(config.text + SHORT)
    for k, row in enumerate((*rows, *unseen)):
        slide = folder / row.split(",")[0]
        write_slide(slide, tissue_pixels(640 + 8 * k, 600, margin=0.05), levels=2, factor=4)
    shutil.copy(folder / "slides" / "a.svs", folder / "slide.svs")
    return folder


@pytest.fixture
def at_desk(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(desk, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


def left(page: str) -> list[str]:
    """The commands of a page that are to be run here."""
    away = tuple(ELSEWHERE.get(page, {}))
    lines = [line for block in blocks(page, "sh") if not block.text.startswith(away or "\0") for line in block.commands]
    return [line for line in lines if not line.startswith(tuple(NOT_RUN.get(page, {})) or "\0")]


@pytest.mark.parametrize("page", [page for page in PAGES if left(page)])
def test_its_commands_run(page: str, at_desk: Path, checkpoint: Path) -> None:
    from pipeline.cli.assembly import app

    if page != "README.md":  # there a model is trained
        (at_desk / "model").mkdir()
        shutil.copy(checkpoint, at_desk / "model" / "model.safetensors")
    for line in left(page):
        program, *words = [MEANT.get(word, word) for word in shlex.split(line, comments=True)]
        assert program == "saccade", f"{page}: say in NOT_RUN why this is not run: {line}"
        words += [] if "--workers" in words else QUICKLY.get(words[0], [])
        assert not app(words, prog_name="saccade", standalone_mode=False), line


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page not in ELSEWHERE])
def test_its_python_runs(page: str, at_desk: Path, checkpoint: Path) -> None:
    (at_desk / "model").mkdir()
    shutil.copy(checkpoint, at_desk / "model" / "model.safetensors")
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block.text, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_no_block_is_of_a_language_that_nobody_looks_at(page: str) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert text_of(page).count("```") == 2 * len(blocks(page))


def test_what_is_not_run_is_still_there() -> None:
    for page, beginnings in ELSEWHERE.items():
        for beginning, test in beginnings.items():
            assert any(block.text.startswith(beginning) for block in blocks(page)), (page, beginning)
            assert (ROOT / test).is_file(), test
    for page, reasons in NOT_RUN.items():
        lines = [line for block in blocks(page, "sh") for line in block.commands]
        for beginning in reasons:
            assert any(line.startswith(beginning) for line in lines), (page, beginning)


@pytest.mark.parametrize("page", PAGES)
def test_commands_options_and_scripts_that_are_named_exist(page: str) -> None:
    """In prose, too."""
    from typer.main import get_command

    from pipeline.cli.assembly import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    options = {
        name: {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
        for name, command in commands.items()
    }
    for mention in mentions(page):
        flags = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", mention))
        if called := re.match(r"saccade ([a-z]+)(?!\S)", mention):
            assert called[1] in options, f"{page}: no command: {mention}"
            assert flags <= options[called[1]] | {"--help", "-h"}, f"{page}: no such option: {mention}"
        elif script := re.search(r"(?:^|=\.\.\. )python ((?:benchmarks|docs)/[\w/]+\.py)", mention):
            source = (ROOT / script[1]).read_text(encoding="utf-8")
            assert all(f'"{flag}"' in source for flag in flags), f"{page}: no such option: {mention}"
        elif made := re.match(r"make ([\w-]+)$", mention):
            assert f"\n{made[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), f"{page}: no target: {mention}"
        elif mention.startswith("--") and mention.split()[0] not in OTHERS and "" not in ELSEWHERE.get(page, {}):
            assert any(flags <= one for one in options.values()), f"{page}: no command has {mention}"


@pytest.mark.slow
def test_a_scheduler_and_a_worker_by_hand(at_desk: Path, checkpoint: Path) -> None:
    """As docs/clusters.md has it."""
    [block] = [block for block in blocks("docs/clusters.md", "sh") if block.text.startswith("dask scheduler")]
    (at_desk / "model").mkdir()
    shutil.copy(checkpoint, at_desk / "model" / "model.safetensors")
    text = re.sub(r"\b(SLIDES|M|OUT)\b", lambda found: MEANT[found[0]], block.text)
    program = Path(sys.executable)
    text = text.replace("dask ", f"{program} -m dask ").replace("saccade run", f"{program} -m saccade run")
    done = subprocess.run(
        ["bash", "-c", f"export PYTHONPATH={shlex.quote(str(ROOT))}\n{text}code=$?\nkill %1 %2\nexit $code"],
        cwd=at_desk, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (at_desk / "out" / "report.html").exists()
