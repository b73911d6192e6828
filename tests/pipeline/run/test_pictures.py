"""Pictures follow from what lies in a slide's folder, and are drawn anew alone where only they change."""

from __future__ import annotations

import html
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from makers import tissue_pixels, write_slide
from PIL import Image, ImageDraw

import pipeline.run.slide
from pipeline.cohort.target import find_target
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from stages.overlay import evidence_picture, picture
from stages.overlay.insets import SHOWN

READ = Path("/proc/self/io")


def reused(slide: Path, out: Path, model: Path) -> bool:
    """Run, and say whether the earlier result stood."""
    summary = run_cohort(find_target(slide), out, RunSettings(model=model))
    assert summary.ok == 1, summary.rows
    return summary.reused == 1


def files(out: Path) -> dict[str, bytes]:
    """What lies in the slide's folder."""
    folder = out / "slides" / "s"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bytes_read() -> int:
    """By this process until now."""
    return int(READ.read_text().split()[1])


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slide")
    return write_slide(folder / "s.tif", tissue_pixels(3000, 2500, margin=0.05), compression="deflate")


@pytest.fixture(scope="module")
def finished(slide: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    assert not reused(slide, out, checkpoint)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A finished result of each test's own."""
    return shutil.copytree(finished, tmp_path / "out")


def test_the_sheet_names_the_class_that_orange_speaks_for(finished: Path) -> None:
    told = json.loads((finished / "slides" / "s" / "prediction.json").read_text())["pictures"]["class"]
    sheet = html.unescape((finished / "slides" / "s" / "slide.html").read_text())
    assert f"Orange speaks for {told}, blue against it" in sheet


def test_pictures_of_a_doubtful_result_warn_and_a_former_ones_are_drawn_anew_to_warn(
    slide: Path, checkpoint: Path, out: Path
) -> None:
    def red(name: str) -> bool:
        """Whether something in a picture's head is in red."""
        with Image.open(out / "slides" / "s" / name) as image:
            head = np.asarray(image)[:80].astype(int)
        return bool((head[..., 0] - head[..., 1:].max(axis=2) > 90).any())

    mark = out / "slides" / "s" / "prediction.json"
    told = json.loads(mark.read_text())
    pictures = ("overlay.jpg", "evidence.jpg")
    for warnings in ([], ["it looks unlike the slides that the model was trained on"]):
        former = told["pictures"] | {"drawn_by": "a former version"}
        mark.write_text(json.dumps(told | {"row": told["row"] | {"warnings": warnings}, "pictures": former}))
        assert reused(slide, out, checkpoint)
        assert [red(name) for name in pictures] == [bool(warnings)] * 2


def test_an_overlay_says_where_the_patches_are_that_are_not_close_up(
    slide: Path, checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = out / "slides" / "s" / "prediction.json"
    told = json.loads(mark.read_text())
    few = told["evidence"]["gallery"][:SHOWN]
    many = [*few, *({**few[-1], "column": few[-1]["column"] + n} for n in range(1, SHOWN))]
    said: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, **how: said.append(text))
    for gallery in (many, few):
        former = {"pictures": told["pictures"] | {"drawn_by": "a former version"}}
        mark.write_text(json.dumps(told | former | {"evidence": told["evidence"] | {"gallery": gallery}}))
        said.clear()
        assert reused(slide, out, checkpoint)
        assert ("The others are in gallery.jpg." in " ".join(said)) is (gallery is many)


@pytest.mark.skipif(not READ.exists(), reason="only Linux counts what a process reads")
def test_another_colour_draws_the_pictures_anew_and_reads_no_more_of_the_slide_than_tells_that_it_is_the_same(
    slide: Path, checkpoint: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, spent = files(out), []
    for colour in ((217, 95, 2), (0, 150, 0), (0, 151, 0), (0, 151, 0)):
        monkeypatch.setattr(evidence_picture, "FOR", colour)
        shutil.copy2(slide, tmp_path / "copy")  # it is looked at, also where nothing is to be done
        os.replace(tmp_path / "copy", tmp_path / "s.tif")
        began = bytes_read()
        assert reused(tmp_path / "s.tif", out, checkpoint)
        spent.append(bytes_read() - began)
    after = files(out)
    changed = {name for name in after if after[name] != before.get(name)}
    assert after.keys() == before.keys()
    assert changed - {"preview.jpg"} == {"evidence.jpg", "slide.html", "prediction.json"}  # no attention is in orange
    lies_there = sum(map(len, before.values()))
    assert spent[2] - spent[3] < 2 * lies_there < slide.stat().st_size / 10


def test_other_colours_of_attention_draw_the_overlay_anew(
    slide: Path, checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(out)
    monkeypatch.setattr(picture, "COLOURS", picture.COLOURS[::-1])
    assert reused(slide, out, checkpoint)
    after = files(out)
    assert {name for name in after if after[name] != before[name]} == {
        "overlay.jpg",
        "preview.jpg",
        "slide.html",
        "prediction.json",
    }


def test_a_slide_whose_pictures_cannot_be_drawn_from_what_is_left_is_read_again(
    slide: Path, checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thumbnail = out / "slides" / "s" / "thumbnail.jpg"
    whole = thumbnail.read_bytes()
    thumbnail.write_bytes(bytes(len(whole)))  # of the size that it had, which is all that a rerun asks for
    assert reused(slide, out, checkpoint)  # nobody needs it
    monkeypatch.setattr(picture, "COLOURS", picture.COLOURS[::-1])
    assert not reused(slide, out, checkpoint)
    assert thumbnail.read_bytes() == whole


def test_a_kill_between_pictures_leaves_a_result_whose_pictures_are_drawn_by_the_next_run(
    slide: Path, checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_picture, "FOR", (0, 150, 0))
    with monkeypatch.context() as killed:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        killed.setattr(pipeline.run.slide, "write_commit", stop)
        with pytest.raises(KeyboardInterrupt):
            reused(slide, out, checkpoint)
    mark = out / "slides" / "s" / "prediction.json"
    old = json.loads(mark.read_text())["pictures"]["drawn_by"]
    assert reused(slide, out, checkpoint)
    assert json.loads(mark.read_text())["pictures"]["drawn_by"] != old
