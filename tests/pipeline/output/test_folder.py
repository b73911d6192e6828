"""An output folder is ours, and says why it cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from makers import names

from pipeline.errors import UsageError
from pipeline.output.folder import is_output, prepare_output
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
    with pytest.raises(UsageError, match=f"already has a '{name}' that saccade did not write; choose an --out"):
        prepare_output(tmp_path)
    assert names(tmp_path) == {name}


def test_other_files_in_an_output_folder_are_fine(tmp_path):
    (tmp_path / "notes.txt").touch()
    prepare_output(tmp_path)
    assert names(tmp_path) == {".saccade", "notes.txt"}


def test_a_file_in_the_way_is_one_line_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"cannot write to .*; choose another --out") as caught:
            prepare_output(out)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses even its owner")
def test_an_unwritable_folder_is_one_line_with_the_remedy():
    with pytest.raises(UsageError, match=r"cannot write to /proc/self: .*; choose another --out"):
        prepare_output(Path("/proc/self"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line_with_the_remedy(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied; choose another --out"):
        prepare_output(tmp_path)
