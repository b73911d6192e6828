"""Every real slide at hand, good and bad, through the command: what is said, what is predicted, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from makers import saccade
from PIL import Image

pytestmark = pytest.mark.realdata

REFUSED = {
    "boxes": "implausible resolution 352.8 x 352.8 µm/px",
    "broken": "not a whole-slide image",
    "unopenable": "Unsupported TIFF compression",
    "unreadable": "damaged",
    "multi_frame_jpeg_camelyon_challenge_image": "28.97 µm/px, coarser than the 0.5 µm/px that the model reads",
    "small": "no tissue",
}


@pytest.fixture(scope="module")
def out(shared_data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "run"
    done = saccade("run", shared_data / "slides", "--model", checkpoint, "--out", out, "--workers", 0)
    assert done.returncode == 1, done.stderr
    assert "2 of 8 slides predicted" in done.stdout
    return out


def test_every_slide_is_attempted_and_the_bad_ones_are_refused_in_one_line(out: Path) -> None:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["slide_id"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"CMU-1-Small-Region", "test3-DAPI-2-(387)", *REFUSED}
    for name, words in REFUSED.items():
        assert rows[name]["status"] == "failed"
        assert words in rows[name]["error"]
        assert "unexpected" not in rows[name]["error"]


@pytest.mark.parametrize("name", ["CMU-1-Small-Region", "test3-DAPI-2-(387)"])
def test_outlined_patches_lie_on_the_slide_and_on_its_tissue(out: Path, shared_data: Path, name: str) -> None:
    folder = out / "slides" / name
    with Image.open(folder / "overlay.jpg") as picture:
        assert picture.size[0] > 300
    features = json.loads((folder / "overlay.geojson").read_text())["features"]
    corners = np.array(
        [f["geometry"]["coordinates"][0] for f in features if f["properties"]["objectType"] == "detection"]
    )
    assert len(corners) == 16
    size = {"CMU-1-Small-Region": (2220, 2967), "test3-DAPI-2-(387)": (3968, 4864)}[name]
    middle = corners[:, :4].mean(1)
    assert ((middle >= 0) & (middle <= size)).all()
    with Image.open(folder / "thumbnail.jpg") as picture:
        thumbnail = np.asarray(picture).astype(float)
    mpp = {"CMU-1-Small-Region": 0.499, "test3-DAPI-2-(387)": 0.22818}[name]
    glass = np.median(np.concatenate([thumbnail[0], thumbnail[-1]]), axis=0)
    differs = 0
    for x, y in middle * mpp / 8.0:
        part = thumbnail[max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3]
        differs += bool((np.abs(part - glass).max() > 10) if part.size else False)
    assert differs >= 15  # a cell at the tissue's rim may show mostly glass


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (
            "CMU-1-Small-Region.svs",
            ["aperio", "0.499 x 0.499", "objective 20x", "2220 x 2967 px", "240 x 240 (own tiles)"],
        ),
        (
            "test3-DAPI-2-(387).ndpi",
            ["hamamatsu", "0.2282 x 0.2282", "level 6", "downsample 64", "(through OpenSlide)"],
        ),
        ("multi_frame_jpeg_camelyon_challenge_image.dcm", ["dicom", "28.97 x 28.97", "1152 x 700"]),
        ("boxes.tiff", ["resolution  unknown", "implausible resolution 352.8", "--mpp"]),
        ("small.svs", ["16 x 16 px", "also in it  thumbnail"]),
        ("broken/unreadable.svs", ["warning     cannot read level 0"]),
    ],
)
def test_info_tells_the_truth(shared_data: Path, file: str, words: list[str]) -> None:
    told = saccade("info", shared_data / "slides" / file)
    assert told.returncode == 0
    for word in words:
        assert word in told.stdout


@pytest.mark.parametrize("file", ["broken/broken.svs", "broken/unopenable.tiff"])
def test_info_of_what_cannot_be_opened_is_one_line(shared_data: Path, file: str) -> None:
    told = saccade("info", shared_data / "slides" / file)
    assert told.returncode == 2
    assert len(told.stderr.strip().splitlines()) == 1


def test_the_true_resolution_can_be_given(shared_data: Path, checkpoint: Path, tmp_path: Path) -> None:
    """The boxes become a slide of 75 x 62 µm once somebody says how large they are."""
    slide = shared_data / "slides" / "boxes.tiff"
    done = saccade("run", slide, "--model", checkpoint, "--out", tmp_path, "--mpp", 0.25)
    assert "implausible" not in done.stderr


def test_a_cached_pyramid_of_a_real_slide_gives_its_results(
    shared_data: Path, out: Path, checkpoint: Path, tmp_path: Path
) -> None:
    slide = shared_data / "slides" / "CMU-1-Small-Region.svs"
    assert saccade("cache", slide, "--out", tmp_path / "cache").returncode == 0
    done = saccade("run", tmp_path / "cache", "--model", checkpoint, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    mine, theirs = (
        json.loads((folder / "slides" / "CMU-1-Small-Region" / "prediction.json").read_text())
        for folder in (tmp_path / "run", out)
    )
    assert mine["key"] == theirs["key"]
    assert mine["row"]["prob_tumour"] == pytest.approx(theirs["row"]["prob_tumour"], rel=1e-6)  # threads differ
