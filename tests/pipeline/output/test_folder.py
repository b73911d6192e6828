"""An output folder is ours, and says why it cannot be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from makers import names

from pipeline.errors import UsageError
from pipeline.output.folder import RUN, TRAINING, is_output, prepare_output, refuse_unwritable
from pipeline.output.run_record import write_run


def test_an_output_folder_is_made_marked_and_used_again(folder):
    out = folder / "deep" / "out"
    prepare_output(out)
    assert is_output(out)
    write_run(out / "run.json", {})
    prepare_output(out)
    assert names(out) == {".saccade", "run.json"}


@pytest.mark.parametrize("name", ["predictions.csv", "run.json", "slides", "model.safetensors"])
def test_what_another_program_wrote_is_never_written_over(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(
        UsageError,
        match=f"already has a '{name}' that saccade did not write, or whose folder's mark .* deleted",
    ):
        prepare_output(tmp_path)
    assert names(tmp_path) == {name}


def test_other_files_in_an_output_folder_are_fine(tmp_path):
    (tmp_path / "notes.txt").touch()
    prepare_output(tmp_path)
    assert names(tmp_path) == {".saccade", "notes.txt"}


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
def test_a_mark_that_is_not_ours_makes_nothing_ours(tmp_path, kind):
    mark, theirs = tmp_path / "out" / ".saccade", tmp_path / "theirs"
    mark.parent.mkdir()
    theirs.write_text("[mycfg]")
    if kind == "file":
        mark.write_text("[mycfg]")
    elif kind == "folder":
        mark.mkdir()
    else:
        mark.symlink_to(theirs if kind == "link" else tmp_path / "nowhere")
    before = mark.lstat()
    assert not is_output(mark.parent)
    with pytest.raises(UsageError, match=r"already has a '\.saccade' that saccade did not write"):
        prepare_output(mark.parent)
    assert mark.lstat() == before
    assert theirs.read_text() == "[mycfg]"


def test_what_a_user_puts_beside_is_not_taken_for_ours(tmp_path):
    """A folder of pyramids becomes that of a run, too, unless something of the user's has the name of a result."""
    prepare_output(tmp_path, names=())
    (tmp_path / "predictions.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"already has a 'predictions\.csv' that saccade did not write"):
        prepare_output(tmp_path, names=RUN)
    (tmp_path / "predictions.csv").unlink()
    prepare_output(tmp_path, names=RUN)
    (tmp_path / "predictions.csv").write_text("a run's")
    prepare_output(tmp_path, names=())
    prepare_output(tmp_path, names=RUN)
    (tmp_path / "curve.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"already has a 'curve\.csv'"):
        prepare_output(tmp_path, names=TRAINING)


def test_a_file_in_the_way_is_one_line_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"cannot write to .*; or choose another folder") as caught:
            prepare_output(out)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses even its owner")
def test_an_unwritable_folder_is_one_line_with_the_remedy():
    with pytest.raises(UsageError, match=r"cannot write to /proc/self: .*; or choose another folder"):
        prepare_output(Path("/proc/self"))


def test_a_folder_that_is_shut_is_told_of_without_writing_as_by_writing(tmp_path, small_disk):
    """Also of the results inside, in which there is more to write than in the folder itself."""
    (tmp_path / ".saccade").write_text('{"program": "saccade", "names": ["disk"]}')
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for out in (small_disk / "out", tmp_path):
        told = []
        for refuse in (refuse_unwritable, prepare_output):
            with pytest.raises(UsageError) as caught:
                refuse(out, names=["disk"])
            told.append(str(caught.value))
        why = "its file system is read-only: have it mounted for writing; or choose another folder"
        assert told == [f"cannot write to {out}: {why}"] * 2


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line_with_the_remedy(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=r"no permission to write to .*; or choose another folder"):
        prepare_output(tmp_path)
