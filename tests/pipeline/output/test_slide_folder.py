"""A slide's folder counts as done only when all of it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers import AWKWARD, PowerCut, names

from pipeline.cohort.target import find_target
from pipeline.output.slide_folder import COMMIT, begin_slide, read_commit, slide_key, write_commit, write_thumbnail
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from stages.disk import new_file


def test_keys_change_with_every_part_and_not_with_order():
    key = slide_key("abc", {"samples": 32, "mpp": None, "scheme": "iid"})
    assert len(key) == 64
    assert key == slide_key("abc", {"scheme": "iid", "samples": 32, "mpp": None})
    others = [
        slide_key("abd", {"samples": 32, "mpp": None, "scheme": "iid"}),
        slide_key("abc", {"samples": 33, "mpp": None, "scheme": "iid"}),
        slide_key("abc", {"samples": 32, "mpp": 0.5, "scheme": "iid"}),
        slide_key("abc", {"samples": 32, "scheme": "iid"}),
    ]
    assert len({key, *others}) == 5
    with pytest.raises(ValueError, match="JSON compliant"):
        slide_key("abc", {"mpp": float("nan")})
    with pytest.raises(TypeError, match="not JSON serializable"):
        slide_key("abc", {"path": object()})


def test_a_commit_mark_is_read_back_and_taken_back_before_a_new_start(folder):
    slide = folder / "s"
    assert read_commit(slide) is None
    begin_slide(slide)
    record = {"key": "k", "fingerprint": "f", "path": f"/x/{AWKWARD}\udcff", "row": {"prob_a": 0.5}}
    write_commit(slide, record)
    assert read_commit(slide) == record
    begin_slide(slide)
    assert read_commit(slide) is None
    assert names(slide) == set()


@pytest.mark.parametrize(
    "content", [b"", b'{"key": "k", "ro', b"[1]", b'{"row": 1}', b'{"key": 1}', b"\xff\xfe", b"null"]
)
def test_a_damaged_commit_mark_counts_as_none(tmp_path, content):
    (tmp_path / COMMIT).write_bytes(content)
    assert read_commit(tmp_path) is None


def test_a_commit_without_a_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a 'key'"):
        write_commit(tmp_path, {"row": 1})


def test_a_thumbnail_is_a_small_jpeg_of_the_same_picture(folder):
    from PIL import Image

    rows, columns = np.mgrid[:900, :1000]
    rgb = np.stack([rows % 251, columns % 241, (rows + columns) % 239], axis=-1).astype(np.uint8)
    write_thumbnail(folder / "thumbnail.jpg", rgb)
    assert (folder / "thumbnail.jpg").stat().st_size < rgb.size / 20
    with Image.open(folder / "thumbnail.jpg") as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image).astype(int) - rgb).mean() < 6


def test_files_that_are_written_no_more_are_gone_and_a_users_stay(folder):
    for name in ("thumbnail.png", "overlay.png", "evidence.png", "notes.txt"):
        (folder / name).write_text("x")
    begin_slide(folder)
    assert names(folder) == {"notes.txt"}


def test_a_power_cut_never_leaves_a_mark_beside_what_is_not_whole(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a first run and in one that replaces its results: the old mark is gone before anything else is replaced, and
    the disk holds everything else before the new one has its place."""
    slides, slide = tmp_path / "out/slides", tmp_path / "out/slides/plain"
    marks: list[set[str]] = []
    replaced: set[str] = set()

    def before_rename(target: Path) -> None:
        if target == slide / COMMIT:
            (temporary,) = slide.glob(".saccade-*")
            assert disk.lost(temporary) == set()
            marks.append(disk.lost(slide) - {temporary.name})
        elif target.parent == slide:
            replaced.add(target.name)
            assert COMMIT not in names(slide) | disk.names(slide)

    disk = PowerCut(monkeypatch, before_rename)
    everything = {"thumbnail.jpg", "attention.zarr", "samples.h5", "overlay.jpg", "overlay.geojson"}
    everything |= {"evidence.zarr", "evidence.jpg", "gallery.jpg", "preview.jpg", "slide.html"}
    for seed in (0, 1):
        replaced.clear()
        summary = run_cohort(
            find_target(slides_folder / "plain.tif"), tmp_path / "out", RunSettings(model=checkpoint, seed=seed)
        )
        assert (summary.ok, summary.reused) == (1, 0), summary.rows
        assert {name for name in replaced if not name.startswith(".saccade-")} == everything
        assert disk.names(slide) == names(slide) == {*everything, COMMIT}
        assert disk.lost(slide) == set()
    assert marks == [set(), set()]
    assert names(slides) == {"plain"}


def test_what_a_killed_process_left_unfinished_goes_when_its_slide_is_begun_anew(tmp_path: Path) -> None:
    with new_file(tmp_path / "samples.h5") as left:
        left.touch()
    left.touch()
    (tmp_path / "notes.txt").touch()
    begin_slide(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "samples.h5"]
