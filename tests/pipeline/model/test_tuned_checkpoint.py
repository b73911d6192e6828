"""A model whose pretrained encoder was tuned: what was learnt is in its checkpoint, and needs no other file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import TINY

from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.sampler import AttentionSampler
from stages.encoder.sources import RANDOM


def test_a_checkpoint_holds_the_tuned_encoder(tmp_path: Path) -> None:
    """The encoder that it started from is not asked for again."""
    torch.manual_seed(3)
    spec = replace(TINY, encoder="lite0", tune=1)
    model = AttentionSampler(spec, encoder_weights=Path(RANDOM)).eval()
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    patches = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    assert isinstance(again, AttentionSampler)
    assert torch.equal(again.encoder(patches), model.encoder(patches))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["encoder.tune=2"], "encoder.tune is for a pretrained encoder with attention.kind: learned"),
        (["attention.kind=learned", "encoder.name=small", "encoder.tune=2"], "found small with learned"),
        (["attention.kind=learned"], "'lite0' does not by itself"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path: Path, change: list[str], said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("cohort: {table: t.csv}\n")
    with pytest.raises(UsageError, match=said):
        load_config(path, change)
    load_config(path, ["attention.kind=learned", "encoder.tune=2"])
