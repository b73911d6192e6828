"""An encoder by its name: nothing is loaded until pixels are to be encoded, and then it must be the one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models import random_lite0

from stages.encoder.card import EncoderCard
from stages.encoder.load import load_backbone
from stages.encoder.named import NamedEncoder
from stages.encoder.registry import UNNAMED

PIXELS = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_is_loaded_when_it_is_asked_for_pixels(tmp_path: Path) -> None:
    weights = random_lite0(tmp_path / "w.safetensors")
    named = NamedEncoder("lite0", 1280, px=64, weights=weights, precision="float32")
    assert torch.equal(named(PIXELS), load_backbone("lite0", weights=weights)(PIXELS))


def test_its_card_is_the_same_wherever_it_is_made() -> None:
    """A checkpoint is compared by it."""
    one, other = (NamedEncoder("uni", 1024, px=256, weights=None, precision="float32") for _ in range(2))
    assert EncoderCard.from_json(one.card.to_json()) == other.card
    assert one.card.misfit(px=256, mpp=0.5) == []


@pytest.mark.parametrize(
    ("name", "dim", "said"),
    [
        (UNNAMED, 1280, "an encoder that nobody named: give bags"),
        ("lite0", 1024, "features of length 1024, lite0 gives 1280"),
        ("uni_v9", 1024, "uni_v9"),
    ],
)
def test_what_cannot_be_it_is_refused(name: str, dim: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NamedEncoder(name, dim, px=64, weights=None, precision="float32")(PIXELS)
