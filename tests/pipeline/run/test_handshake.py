"""Workers are asked which Saccade they would run, and refused in one line; real schedulers and processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dasks import scheduler_in, worker
from distributed import Client

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError
from pipeline.run import handshake as tested
from pipeline.run.handshake import refuse_strangers
from pipeline.run.workers import each

JOBS = [(CohortSlide(slide_id=name, path=Path(name), patient=name),) for name in "abc"]


def answer_with(slide: CohortSlide, folder: Path) -> dict[str, Any]:
    while not os.path.exists(folder / "go"):
        time.sleep(0.05)
    return {"slide_id": slide.slide_id, "status": "ok"}


def shadow(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    return folder


def refusal(scheduler: str) -> str:
    with pytest.raises(UsageError) as caught:
        list(each(print, JOBS, workers=0, scheduler=scheduler))
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["pipeline", pytest.param("stages", marks=pytest.mark.slow)])
def test_a_worker_in_a_folder_with_a_package_of_our_name_is_named(farm: str, tmp_path: Path, name: str) -> None:
    elsewhere = shadow(tmp_path / "else where", name)
    with worker(farm, elsewhere):
        text = refusal(farm)
    assert re.match(r"the worker tcp://127\.0\.0\.1:\d+ would import ", text)
    assert str(elsewhere / name / "__init__.py") in text
    assert text.endswith("rename that, or start it in another folder")


@pytest.mark.slow
def test_a_scheduler_in_such_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    with scheduler_in(shadow(tmp_path, "pipeline")) as address, worker(address, tmp_path / "cwd"):
        assert refusal(address).startswith(f"the scheduler {address} would import {tmp_path / 'pipeline'}")


def test_another_version_is_named(farm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "saccade_version", lambda: "99.0")
    assert re.match(r"the scheduler tcp://\S+ has saccade \S+ and this is 99\.0: install the same", refusal(farm))


def test_other_files_of_the_same_version_are_named(farm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "code_digest", lambda: "another")
    assert re.match(r"the scheduler \S+ has other files of saccade \S+, in /\S+, than are run here", refusal(farm))


def test_a_worker_without_saccade_is_told_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"^it cannot import saccade: install saccade-wsi \S+ there"):
        refuse_strangers("it", {"saccade": None, "pipeline": None, "stages": None})
    half = {"saccade": "/there/saccade/__init__.py", "pipeline": "/there/pipeline/__init__.py", "stages": None}
    with pytest.raises(UsageError, match=r"^it has no /there/stages: install saccade-wsi again"):
        refuse_strangers("it", half)


@pytest.mark.parametrize("shadows", [("saccade",), ("saccade", "pipeline"), ("pipeline", "stages"), ("stages",)])
def test_what_hides_a_part_of_saccade_is_named_whatever_part(tmp_path: Path, shadows: tuple[str, ...]) -> None:
    """And not the installation that it hides, by what a process in such a folder answers."""
    for name in ("saccade", "pipeline", "stages"):
        shadow(tmp_path / "own", name)
    for name in shadows:
        shadow(tmp_path / "cwd", name)
    question = f"import json; print(json.dumps({tested._WHERE}))"
    paths = os.pathsep.join(str(tmp_path / name) for name in ("cwd", "own"))
    command = [sys.executable, "-S", "-c", question]
    said = subprocess.run(command, env={"PYTHONPATH": paths}, cwd=tmp_path, capture_output=True, text=True, check=True)
    strange = " and ".join(str(tmp_path / "cwd" / name / "__init__.py") for name in shadows)
    rename = "rename that" if len(shadows) == 1 else "rename those"
    with pytest.raises(UsageError) as caught:
        refuse_strangers("it", json.loads(said.stdout))
    assert str(caught.value) == (
        f"it would import {strange} in place of saccade's own in {tmp_path / 'own'}: {rename}, or start it in another "
        "folder"
    )


@pytest.mark.slow
def test_a_stranger_that_joins_later_is_told_of_and_left_out(farm: str, tmp_path: Path) -> None:
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        (tmp_path / "go").touch()

    jobs = [(slide, tmp_path) for (slide,) in JOBS]
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(list, each(answer_with, jobs, workers=0, scheduler=farm, warn=tell))
        with Client(farm, set_as_default=False) as client:
            while not any(client.processing().values()):
                time.sleep(0.05)
        with worker(farm, shadow(tmp_path / "elsewhere", "pipeline")):
            rows = found.result(60)
    assert [row["status"] for _, row in rows] == ["ok"] * 3
    assert len(lines) == 1
    assert lines[0].endswith("rename that, or start it in another folder; it is not used")
