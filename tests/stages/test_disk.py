"""A file or a folder is written whole, by us, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from makers import ROOT, names

from pipeline.output.documents import write_json
from stages.disk import ForeignFolderError, new_file, new_folder


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_keeps_the_old_file_and_leaves_nothing(folder, error):
    path = folder / "a.json"
    path.write_text("old")

    def fail() -> None:
        with new_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(folder) == {"a.json"}


def test_the_temporary_path_is_a_hidden_neighbour_with_the_same_suffix(folder):
    with new_file(folder / "x.ome.tiff") as temporary:
        assert temporary.parent == folder
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".tiff"
        temporary.write_text("new")
        assert not (folder / "x.ome.tiff").exists()
    assert (folder / "x.ome.tiff").read_text() == "new"
    assert names(folder) == {"x.ome.tiff"}


def test_files_get_the_permissions_that_new_files_get(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_json(tmp_path / "ours", {})
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_process_leaves_the_old_file(folder):
    path = folder / "a.json"
    path.write_text("old")
    script = (
        "import os, pathlib, signal, sys\n"
        "from stages.disk import new_file\n"
        "with new_file(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_writers_of_one_file_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    with new_file(path) as first, new_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert names(tmp_path) == {"a.txt"}


def test_a_directory_appears_whole_and_replaces_only_ours(folder):
    def ours(path: Path) -> bool:
        return (path / "mark").exists()

    def fill(text: str, error: type[Exception] | None = None) -> None:
        with new_folder(folder / "d.zarr", ours=ours) as temporary:
            (temporary / "mark").touch()
            (temporary / "sub").mkdir()
            (temporary / "sub" / "data").write_text(text)
            if error:
                raise error

    fill("one")
    fill("two")
    assert (folder / "d.zarr" / "sub" / "data").read_text() == "two"
    with pytest.raises(RuntimeError):
        fill("half", RuntimeError)
    assert (folder / "d.zarr" / "sub" / "data").read_text() == "two"
    (folder / "theirs.zarr").mkdir()
    (folder / "theirs.zarr" / "precious").touch()
    with (
        pytest.raises(ForeignFolderError, match=r"theirs\.zarr was not written by saccade and stays"),
        new_folder(folder / "theirs.zarr", ours=ours),
    ):
        pass
    assert names(folder) == {"d.zarr", "theirs.zarr"}
    assert names(folder / "theirs.zarr") == {"precious"}
