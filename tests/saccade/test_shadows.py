"""A folder `pipeline` or `stages` where the user works: it works, or one line says what hides what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from makers import ROOT


def python(*arguments: str, cwd: Path, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in a folder, with our packages on its path as an installation puts them there."""
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(params=["pipeline/__init__.py", "stages/__init__.py", "pipeline.py"])
def hiding(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that Python finds before ours when its folder is the working directory."""
    file = tmp_path / request.param
    file.parent.mkdir(exist_ok=True)
    file.write_text("THEIRS = True\n")
    return file


def test_a_notebook_says_what_hides_what_and_how_to_go_on(hiding: Path, tmp_path: Path) -> None:
    done = python("-c", "import saccade\nprint('imported')\nsaccade.open_slide('a.svs')", cwd=tmp_path)
    assert done.stdout == "imported\n"
    line = done.stderr.strip().splitlines()[-1]
    theirs, name = (hiding.parent if hiding.name == "__init__.py" else hiding), hiding.relative_to(tmp_path).parts[0]
    name = name.removesuffix(".py")
    assert line == (
        f"ImportError: {theirs} hides saccade's own package {ROOT / name}: rename it, "
        f"or start Python in a folder where there is no {name!r}"
    )


def test_a_module_that_was_imported_before_is_seen(hiding: Path, tmp_path: Path) -> None:
    name = hiding.relative_to(tmp_path).parts[0].removesuffix(".py")
    code = f"import {name}, sys, saccade\nsys.path.pop(0)\nsaccade.open_slide('a.svs')"
    assert "hides saccade's own package" in python("-c", code, cwd=tmp_path).stderr.splitlines()[-1]


def test_the_command_works_beside_it(hiding: Path, tmp_path: Path) -> None:
    done = python("-m", "saccade", "info", "a.svs", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "saccade: error: a.svs: no such file: check the path, or the cohort table's folder\n"


def test_the_command_says_so_where_it_cannot(hiding: Path, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    done = python("-m", "saccade", "info", "a.svs", cwd=tmp_path / "cwd", path=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"saccade: error: {tmp_path}")
    assert "hides saccade's own package" in done.stderr


@pytest.mark.parametrize("name", ["pipeline", "stages"])
def test_a_folder_of_data_hides_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert python("-c", "import saccade; saccade.open_slide", cwd=tmp_path).returncode == 0
    assert python("-m", "saccade", "--version", cwd=tmp_path).returncode == 0


def test_a_checkout_is_its_own_home() -> None:
    """In the repository itself the working directory holds the packages, and they are ours."""
    assert python("-m", "saccade", "--version", cwd=ROOT, path="").returncode == 0


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "saccade").symlink_to(ROOT / "saccade")
    code = "import saccade.shadows as s; s.ROOT = 'elsewhere'; s.PACKAGES = ('no_such_package',); s.refuse_shadows()"
    done = python("-c", code, cwd=tmp_path)
    assert done.stderr.splitlines()[-1].endswith("cannot be imported: install saccade-wsi again")


def test_a_working_directory_that_is_gone_hides_nothing(tmp_path: Path) -> None:
    code = "import os, sys; os.rmdir(os.getcwd()); sys.argv = ['saccade', '--version']; " + (
        "from saccade.__main__ import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path / "gone", env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("saccade ")
