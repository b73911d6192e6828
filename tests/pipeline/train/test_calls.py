"""A training calibrates calls on its val part by itself, on nothing else, and not again where nothing has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers import tissue_pixels, write_config, write_slide

from pipeline.config import load_config
from pipeline.model.checkpoint import load_model
from pipeline.model.header import model_digest
from pipeline.train.train import train_cohort
from stages.slide.files import open_slide

FAST = [
    *("view.attention_mpp=8", "view.patch_px=32", "encoder.dim=8", "sampling.samples=8", "training.epochs=1"),
    *("training.batch_size=4", "training.calibration_slides=1", "training.device=cpu"),
]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small slides, four of each class."""
    folder = tmp_path_factory.mktemp("slides")
    for i in range(8):
        write_slide(folder / f"s{i}.tif", tissue_pixels(320 + 7 * i, 300, margin=0.1), levels=2, factor=4)
    return folder


def train(slides: Path, out: Path, splits: str, *, patients: str = "01234567", classes: str = "a b") -> list[str]:
    """Lines of a training; ``splits`` has a letter for each slide."""
    whole = {"r": "train", "v": "val", "t": "test"}
    rows = [f"{slides}/s{i}.tif,p{patients[i]},{classes.split()[i % 2]},{whole[splits[i]]}\n" for i in range(8)]
    out.mkdir(exist_ok=True)
    (out / "cohort.csv").write_text("slide,patient,label,split\n" + "".join(rows))
    config, lines = load_config(write_config(out), FAST), list[str]()
    train_cohort(config, out / "training", say=lines.append)
    return [line for line in lines if "label sets" in line]


def test_the_val_part_calibrates_calls_once(slides: Path, tmp_path: Path) -> None:
    lines = train(slides, tmp_path, "rrrrvvvv")
    path = tmp_path / "training" / "model.safetensors"
    known = load_model(path).label_calibration
    assert known is not None
    assert known.slides == {open_slide(slides / f"s{i}.tif").facts.fingerprint for i in range(4, 8)}
    assert any("4 slides of 4 patients (2 a, 2 b), split val of the training" in line for line in lines)
    assert any("the epoch was chosen by the same slides" in line for line in lines)
    digest = model_digest(path)
    assert train(slides, tmp_path, "rrrrvvvv") == []
    assert model_digest(path) == digest
    train(slides, tmp_path, "rrrrvvvv", patients="01234545")  # two of them are of one patient, it turns out
    again = load_model(path).label_calibration
    assert again is not None
    assert again.conformal.patients_of() == 2


def test_a_class_that_calls_could_not_be_told_from_is_said_before_hours_of_work(slides: Path, tmp_path: Path) -> None:
    lines = train(slides, tmp_path, "rrrrrrtt", classes="refer b")
    assert lines == [
        "warning: label sets: `saccade run --refer` will not be possible with this model: a class is called 'refer', "
        "which is what is said of slides that are not called: rename it"
    ]


@pytest.mark.parametrize(("splits", "words"), [("rrrrrrtt", None), ("rrrrvrvr", "is labelled 'b', so none")])
def test_without_slides_of_both_classes_to_validate_on_nothing_is_calibrated(
    slides: Path, tmp_path: Path, splits: str, words: str | None
) -> None:
    """Slides of training and test do not stand in for them."""
    lines = train(slides, tmp_path, splits)
    assert load_model(tmp_path / "training").label_calibration is None
    assert (lines == []) if words is None else (words in lines[0])
