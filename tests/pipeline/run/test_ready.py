"""What a worker elsewhere lacks is one line that says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.model.header import model_digest
from pipeline.output.folder import RUN, prepare_output
from pipeline.run.ready import lacks


def said(out: Path, model: Path, *files: Path, digest: str = "", device: str = "cpu") -> str | None:
    prepare_output(out, names=RUN)
    return lacks(out, model, digest or model_digest(model), files, device)


def test_who_has_all_lacks_nothing(checkpoint: Path, tmp_path: Path) -> None:
    assert said(tmp_path / "out", checkpoint, checkpoint.parent) is None


def test_a_folder_that_is_not_mounted_is_not_made(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert lacks(out, checkpoint, "", [], "cpu") == f"does not have the folder {out}: mount it there at the same path"
    out.mkdir()  # as a mount's empty place is
    assert str(lacks(out, checkpoint, "", [], "cpu")).startswith("does not have the folder")


def test_what_is_missing_or_closed_is_named(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = tmp_path / "a.tif"
    assert said(tmp_path / "out", checkpoint, slide) == (
        f"does not have {slide}: mount it there at the same path, readable"
    )
    slide.touch()
    monkeypatch.setattr(os, "access", lambda path, mode, **how: path != slide)  # the superuser reads everything
    assert str(said(tmp_path / "out", checkpoint, slide)).startswith(f"cannot read {slide}: ")
    monkeypatch.setattr(os, "access", lambda path, mode, **how: path != tmp_path / "out")
    found = lacks(tmp_path / "out", checkpoint, model_digest(checkpoint), [], "cpu")
    assert str(found).startswith(f"cannot write to {tmp_path / 'out'}: ")


def test_another_model_and_a_missing_device_are_told(checkpoint: Path, tmp_path: Path) -> None:
    assert str(said(tmp_path / "out", checkpoint, digest="another")).startswith(f"has another file at {checkpoint}: ")
    assert str(said(tmp_path / "out", checkpoint, device="cuda:99")).startswith("cannot compute on 'cuda:99'")
