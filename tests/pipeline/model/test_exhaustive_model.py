"""The model that reads every cell: exact, and like any other in training, checkpoints and runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from backbones import DIM, tiny
from makers import striped_cohort, tissue_pixels, write_slide
from models import EXHAUSTIVE, exhaustive_model

from pipeline.asked import check_budget
from pipeline.cohort.cohort import CohortSlide
from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.header import model_digest
from pipeline.model.look import look
from pipeline.predict import predict_slide
from pipeline.run.keys import RunSettings
from pipeline.run.slide import process_slide
from pipeline.train.train import train_cohort
from stages.mil.build import HEADS
from stages.prediction.stopping import Decide
from stages.pyramid.open import open_pyramid

__all__ = ["tiny"]  # a fixture

FAST = [
    *("model.kind=exhaustive", "view.attention_mpp=8", "view.patch_mpp=0.5", "view.patch_px=32"),
    *("attention.components=8", "training.members=2", "training.epochs=2", "training.device=cpu"),
]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "s.tif"
    write_slide(path, tissue_pixels(500, 430, margin=0.1), levels=2, factor=4)
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients; the tissue of the positives is finely striped, which any one patch can tell."""
    return striped_cohort(tmp_path_factory.mktemp("cohort"), train=6, test=2)


def config(cohort: Path, *more: str) -> Config:
    return load_config(cohort / "config.yaml", [*FAST, f"reading.features={cohort / 'features'}", *more])


@pytest.mark.parametrize("head", HEADS)
def test_a_prediction_is_what_all_cells_say_and_has_no_width(head: str, slide: Path) -> None:
    model = exhaustive_model(head)
    view = look(slide, model).view
    cells = np.flatnonzero(view.tissue)
    found = predict_slide(open_pyramid(slide), model)
    features = model.backbone(torch.from_numpy(np.asarray(view.patches(cells))))
    logits = model.heads(model.components(view, features), torch.from_numpy(view.tissue)).logits.mean(0)
    assert list(found.probabilities.values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-3)
    assert all(found.intervals[name] == (p, p) for name, p in found.probabilities.items())
    assert found.exact
    assert "exact: every cell was read" in found.in_words("s")
    assert found.patch_cells.tolist() == cells.tolist()
    assert found.attention.sum() == pytest.approx(1)
    assert (found.attention.ravel()[cells] > 0).all()
    # the bag's promise, with all of it read
    np.testing.assert_allclose(found.patch_weights, 1)
    np.testing.assert_allclose(found.patch_features, features.numpy(), rtol=2**-10, atol=1e-6)  # as kept
    # nothing is undecided
    p = list(found.probabilities.values())[1]
    sides = {at: predict_slide(open_pyramid(slide), model, decide=Decide(at, 0.01, 1)) for at in (0.99 * p, 1.01 * p)}
    assert [one.decision and one.decision.side for one in sides.values()] == ["above", "below"]


@pytest.mark.parametrize("head", HEADS)
def test_a_checkpoint_gives_the_model_back(head: str, slide: Path, tmp_path: Path, tiny: object) -> None:
    model = exhaustive_model(head)
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec == model.spec
    assert again.spec.exhaustive
    one, other = (predict_slide(open_pyramid(slide), m).probabilities for m in (model, again))
    assert one == other


@pytest.mark.parametrize("given", [{"samples": 8, "scheme": None}, {"samples": None, "scheme": "iid"}])
def test_how_to_draw_is_no_question_to_it(given: dict[str, None]) -> None:
    with pytest.raises(UsageError, match="the model reads every cell, so --"):
        check_budget(replace(EXHAUSTIVE, head="mean"), **given)
    check_budget(replace(EXHAUSTIVE, head="mean"), samples=None, scheme=None)


@pytest.mark.parametrize("head", ["evidence", pytest.param("gated", marks=pytest.mark.slow)])
def test_it_trains_like_the_others_and_encodes_no_patch_twice(
    head: str, cohort: Path, tmp_path: Path, tiny: object
) -> None:
    lines: list[str] = []
    more = f"model.head={head}"
    assert train_cohort(config(cohort, more), tmp_path, say=lines.append)["test"]["slides"] == 2
    model = load_model(tmp_path / "model.safetensors")
    assert isinstance(model, ExhaustiveModel)
    assert model.spec.head == head
    assert model.calibration is None  # there is nothing to calibrate
    assert sum(line.startswith("out-of-bag: ") and " slides of " in line for line in lines) == 1
    train_cohort(config(cohort, more), tmp_path, say=lines.append)
    assert "is up to date" in " ".join(lines)
    lines.clear()
    train_cohort(config(cohort, more, "training.seed=1"), tmp_path / "other", say=lines.append)
    assert "first guess: features of all patches were known" in lines


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("attention.kind=uniform", "needs a frozen encoder: use attention.kind: encoder, found uniform"),
        ("reading.features_gb=0", "give reading.features_gb room"),
        ("model.kind=sampled", "head gated needs all cells: use kind: exhaustive"),
    ],
)
def test_what_does_not_go_with_it_is_refused(override: str, said: str, cohort: Path) -> None:
    with pytest.raises(UsageError, match=said):
        config(cohort, "model.head=gated", override)


def test_a_run_writes_all_that_belongs_to_a_slide(slide: Path, tmp_path: Path, tiny: object) -> None:
    save_model(exhaustive_model("gated"), tmp_path / "model.safetensors")
    settings = RunSettings(model=tmp_path / "model.safetensors", device="cpu")
    (tmp_path / "slides").mkdir()
    row = process_slide(CohortSlide("s", slide, patient="p"), tmp_path, settings, model_digest(settings.model))
    assert row["status"] == "ok", row["error"]
    assert row["patches_read"] == row["cells"]
    assert row["prob_a"] == row["prob_a_low"] == row["prob_a_high"]
    with h5py.File(tmp_path / "slides" / "s" / "samples.h5") as bag:
        assert bag["features"].shape == (row["cells"], DIM)
    for name in ("overlay.jpg", "overlay.geojson", "attention.zarr", "prediction.json"):
        assert (tmp_path / "slides" / "s" / name).exists()
    assert json.loads((tmp_path / "slides" / "s" / "prediction.json").read_text())["attention_not_read"] == 0
