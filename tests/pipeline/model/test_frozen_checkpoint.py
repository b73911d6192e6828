"""A model on a frozen encoder in a file: it predicts the same to the bit; of the encoder there is only its card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import FROZEN, frozen_view, random_lite0, randomly
from safetensors import safe_open

from pipeline.errors import UsageError
from pipeline.model.build import build_model
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.slide_model import SlideModel

SPEC = replace(FROZEN, encoder="lite0")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_lite0(tmp_path_factory.mktemp("encoder") / "lite0.safetensors")


@pytest.fixture(scope="module")
def model(weights: Path) -> EvidenceModel:
    made = build_model(SPEC, encoder_weights=weights)
    assert isinstance(made, EvidenceModel)
    return randomly(made)


def probabilities(model: SlideModel) -> torch.Tensor:
    return model.sample(frozen_view(3, 4), generator=torch.Generator().manual_seed(0), samples=6).prediction.logits


def test_it_predicts_the_same_from_the_file_to_the_bit(model: EvidenceModel, weights: Path, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors", encoder_weights=weights)
    assert again.spec == SPEC
    assert not again.training
    assert torch.equal(probabilities(again), probabilities(model))
    save_model(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_the_file_holds_no_weight_of_the_encoder(model: EvidenceModel, weights: Path, tmp_path: Path) -> None:
    """But its card; licences forbid to pass most of them on."""
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    with safe_open(path, framework="pt") as file:
        parts = {name.partition(".")[0] for name in file.keys()}  # noqa: SIM118
        told = file.metadata()
    assert parts == {"coarse_whitening", "whitening", "control", "heads"}
    assert path.stat().st_size < weights.stat().st_size / 20
    assert model.backbone.card.digest in told["encoder"]


def test_a_checkpoint_of_another_encoder_is_refused_with_both_digests(
    model: EvidenceModel, weights: Path, tmp_path: Path
) -> None:
    """Its features would mean nothing to the model, and every prediction would look like one."""
    save_model(model, tmp_path / "model.safetensors")
    other = random_lite0(tmp_path / "other.safetensors", seed=1)
    found = build_model(SPEC, encoder_weights=other)
    assert isinstance(found, EvidenceModel)
    with pytest.raises(UsageError) as told:
        load_model(tmp_path / "model.safetensors", encoder_weights=other)
    for digest in (model.backbone.card.digest, found.backbone.card.digest):
        assert digest[:12] in str(told.value)
    assert "file:lite0.safetensors" in str(told.value)


def test_weights_that_changed_under_one_path_are_seen(model: EvidenceModel, weights: Path, tmp_path: Path) -> None:
    """In one process, too, which keeps the encoder that it used last."""
    path = random_lite0(tmp_path / "lite0.safetensors", seed=1)
    before = build_model(SPEC, encoder_weights=path)
    random_lite0(path, seed=2)
    after = build_model(SPEC, encoder_weights=path)
    assert isinstance(before, EvidenceModel)
    assert isinstance(after, EvidenceModel)
    assert before.backbone.card.digest != after.backbone.card.digest


def test_models_of_one_process_share_an_encoder(weights: Path) -> None:
    first, second = (build_model(SPEC, encoder_weights=weights) for _ in range(2))
    assert isinstance(first, EvidenceModel)
    assert isinstance(second, EvidenceModel)
    assert first.backbone is second.backbone
