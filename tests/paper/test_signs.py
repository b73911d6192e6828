"""Traffic signs: which images are in the task and with what label, on annotations and images that the tests draw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from makers import ROOT
from PIL import Image, ImageDraw, ImageFont

from benchmarks.paper import signs as command
from benchmarks.paper.config import Sight
from benchmarks.paper.scenes import CLASSES, SceneViews, Sign, label_of, load_scenes, read_annotations, read_pixels

SIGHT = Sight(low_px=32, cell_px=4, patch_px=16)
CLEAR = "VISIBLE, 90.5, 60, 70.5, 40, PROHIBITORY, 70_SIGN"


def scene(size: tuple[int, int], limit: str, at: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A grey, grainy scene with a round red sign of 20 pixels, or without."""
    grain = rng.integers(90, 150, (size[1], size[0], 1)).repeat(3, 2).astype(np.uint8)
    picture = Image.fromarray(grain)
    if limit != "none":
        box = (*at, at[0] + 20, at[1] + 20)
        draw = ImageDraw.Draw(picture)
        draw.ellipse(box, fill=(240, 220, 40), outline=(200, 20, 20), width=2)
        draw.text((at[0] + 10, at[1] + 10), limit, fill=(0, 0, 0), anchor="mm", font=ImageFont.load_default(size=12))
    return picture


def draw_set(folder: Path, count: int, *, size: tuple[int, int] = (128, 96), seed: int = 0) -> Path:
    """Set1 and Set2 of ``count`` images each, with annotations as in the published files."""
    rng = np.random.default_rng(seed)
    for name in ("Set1", "Set2"):
        (folder / name).mkdir(parents=True)
        lines = []
        for i in range(count):
            limit = CLASSES[i % 4]
            x, y = (int(rng.integers(n - 20)) for n in size)
            scene(size, limit, (x, y), rng).save(folder / name / f"{i:04d}.png")
            sign = f"VISIBLE, {x + 20}.0, {y + 20}.0, {x}.0, {y}.0, PROHIBITORY, {limit}_SIGN;" if i % 4 else ""
            lines.append(f"{i:04d}.png:{sign}")
        (folder / name / "annotations.txt").write_text("\n".join(lines) + "\n")
    return folder


def signs(*kinds: str) -> tuple[Sign, ...]:
    """Signs from 'VISIBILITY NAME SIDE'."""
    found = []
    for kind in kinds:
        visibility, name, side = kind.split()
        found.append(Sign(visibility, (0, 0, float(side), float(side)), "PROHIBITORY", name))
    return tuple(found)


@pytest.mark.parametrize(
    ("found", "label"),
    [
        (signs(), "none"),
        (signs("VISIBLE 50_SIGN 20"), "50"),
        (signs("VISIBLE 70_SIGN 20", "VISIBLE 80_SIGN 30"), "80"),
        (signs("OCCLUDED 50_SIGN 90", "VISIBLE 70_SIGN 10"), "70"),
        (signs("VISIBLE GIVE_WAY 90", "VISIBLE 80_SIGN 10"), "80"),
        (signs("SIDE_ROAD 50_SIGN 20"), None),
        (signs("BLURRED 70_SIGN 20", "OCCLUDED 80_SIGN 20"), None),
        (signs("VISIBLE GIVE_WAY 20"), None),
        (signs("VISIBLE 100_SIGN 20"), None),
    ],
)
def test_the_largest_visible_limit_is_the_label(found: Sequence[Sign], label: str | None) -> None:
    assert label_of(found) == (None if label is None else CLASSES.index(label))


def test_annotations_are_read_as_published(tmp_path: Path) -> None:
    """Corners in either order, a number with a stray letter, signs that nobody annotated, images without any."""
    table = tmp_path / "annotations.txt"
    table.write_text(
        f"a.jpg:{CLEAR};MISC_SIGNS;\nb.jpg:\nc.jpg:MISC_SIGNS;\nd.jpg:{CLEAR.replace('60,', '60.25l,')};\n\n"
    )
    read = read_annotations(table)
    assert list(read) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert read["a.jpg"] == (Sign("VISIBLE", (70.5, 40, 90.5, 60), "PROHIBITORY", "70_SIGN"),)
    assert read["b.jpg"] == read["c.jpg"] == ()
    assert read["d.jpg"][0].box == (70.5, 40, 90.5, 60.25)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no colon at all", "expected 'IMAGE:SIGN"),
        (":" + CLEAR, "expected 'IMAGE:SIGN"),
        ("../a.jpg:", "expected 'IMAGE:SIGN"),
        ("first.jpg:", "annotated before"),
        ("a.jpg:VISIBLE, 1, 2, 3, PROHIBITORY, 70_SIGN;", "expected 'VISIBILITY, x, y"),
        ("a.jpg:SEEN, 1, 2, 3, 4, PROHIBITORY, 70_SIGN;", "found 'SEEN'"),
        ("a.jpg:VISIBLE, 1, 2, three, 4, PROHIBITORY, 70_SIGN;", "found 'three'"),
        ("a.jpg:VISIBLE, 1, 2, nan, 4, PROHIBITORY, 70_SIGN;", "found 'nan'"),
        ("a.jpg:VISIBLE, 1, 2, 3, 4, PROHIBITORY, ;", "a type and a name"),
    ],
)
def test_a_malformed_line_is_refused_with_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    table = tmp_path / "annotations.txt"
    table.write_text(f"first.jpg:{CLEAR};\n{line}\n")
    with pytest.raises(ValueError, match=r"annotations\.txt, line 2: ") as caught:
        read_annotations(table)
    assert words in str(caught.value)


def test_sets_are_split_and_images_without_a_class_left_out(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, 8)
    with (folder / "Set1" / "annotations.txt").open("a") as file:
        file.write(f"unknown.png:{CLEAR.replace('VISIBLE', 'BLURRED')};\n")
    train, test = load_scenes(folder, "train"), load_scenes(folder, "test")
    assert [scene.label for scene in train] == [scene.label for scene in test] == [0, 1, 2, 3] * 2
    assert {scene.path.parent.name for scene in train} == {"Set1"}
    assert {scene.path.parent.name for scene in test} == {"Set2"}


def test_the_annotated_box_holds_the_sign(tmp_path: Path) -> None:
    """A check of the axes: x runs along a row."""
    scenes = [scene for scene in load_scenes(draw_set(tmp_path, 8), "train") if scene.signs]
    for drawn in scenes:
        image = read_pixels(drawn.path).astype(int)
        left, top, right, bottom = (int(n) for n in drawn.signs[0].box)
        coloured = image.max(2) - image.min(2) > 20
        assert coloured.any()
        assert coloured.sum() == coloured[top : bottom + 1, left : right + 1].sum()


def test_a_scene_is_read_through_its_patches(tmp_path: Path) -> None:
    """All of them together are the scene, with x along a row."""
    scenes = load_scenes(draw_set(tmp_path, 4), "train")
    view = SceneViews(scenes, SIGHT)(1, None)
    assert (view.rgb.shape, view.tissue.shape) == ((24, 32, 3), (6, 8))
    patches = view.patches(np.arange(48)).reshape(6, 8, 16, 16, 3)
    np.testing.assert_array_equal(patches.swapaxes(1, 2).reshape(96, 128, 3), read_pixels(scenes[1].path))


def test_augmented_scenes_keep_their_size_and_differ_by_seed(tmp_path: Path) -> None:
    views = SceneViews(load_scenes(draw_set(tmp_path, 4), "train"), SIGHT)
    first, again, other = (views(0, torch.Generator().manual_seed(seed)).rgb for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape == other.shape == (24, 32, 3)
    assert not np.array_equal(first, other)


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Set1"):
        load_scenes(tmp_path, "train")
    folder = draw_set(tmp_path, 4)
    (folder / "Set1" / "0001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0001\.png"):
        load_scenes(folder, "train")
    (folder / "Set2" / "0002.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0002\.png cannot be read"):
        SceneViews(load_scenes(folder, "test"), SIGHT)(2, None)
    (folder / "Set2" / "annotations.txt").write_text(f"0000.png:{CLEAR.replace('70_', '100_')};\n")
    with pytest.raises(ValueError, match="no image shows"):
        load_scenes(folder, "test")


def run_command(
    folder: Path, count: int, epochs: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    """Figures of ATS-5 on drawn scenes, with the configuration's own networks but smaller cells and patches."""
    setting = yaml.safe_load((ROOT / "configs/paper/signs.yaml").read_text())
    setting["sight"] |= {"low_px": 64, "cell_px": 2, "patch_px": 32}
    setting["training"] |= {"epochs": epochs, "batch_size": 8, "learning_rate": 0.005}
    (folder / "small.yaml").write_text(yaml.safe_dump(setting))
    data = draw_set(folder / "data", count)
    monkeypatch.setattr("sys.argv", ["signs", str(data), "--config", str(folder / "small.yaml"), "--rows", "ats5"])
    command.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]["ats5"]
    return told


def test_the_command_trains_and_tests_on_drawn_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_command(tmp_path, 8, 2, monkeypatch, capsys)
    assert told["images"] == {"train": 8, "test": 8}
    assert told["reads"] == 5
    assert set(told["recall"]) == set(CLASSES)
    assert told["error"]["value"] == pytest.approx(1 - np.mean(list(told["recall"].values())))


@pytest.mark.slow
def test_drawn_limits_are_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Chance is an error of 0.75; these signs are easy, all of one size and colour."""
    assert run_command(tmp_path, 400, 8, monkeypatch, capsys)["error"]["value"] < 0.1


def test_a_wrong_folder_is_one_line_of_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["signs", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 2
    assert "Set1 and Set2" in capsys.readouterr().err.splitlines()[-1]
