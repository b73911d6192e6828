"""What a card says of patches that are not what its encoder was trained on, and what features are cached by."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from stages.encoder.card import EncoderCard

ANY = EncoderCard(name="any", source="x", dim=8, px=224, mean=(0.5,) * 3, std=(0.5,) * 3, least=32, step=1)
FIXED = replace(ANY, name="fixed", step=None, mpp=(0.5,))
STEPS = replace(FIXED, name="steps", least=14, step=14)
CROPS = replace(FIXED, name="crops", resize=256, crop=224)


@pytest.mark.parametrize(
    ("card", "px", "mpp", "words"),
    [
        (ANY, 64, 2.0, []),
        (ANY, 20, 1.0, ["takes patches of 32 px, found 20 px: they are resized, to 0.625 µm/px"]),
        (FIXED, 224, 0.52, []),
        (FIXED, 224, 1.0, ["was trained at 0.5 µm/px, found 1 µm/px"]),
        (FIXED, 448, 0.25, ["takes patches of 224 px, found 448 px: they are resized, to 0.5 µm/px"]),
        (FIXED, 256, 0.5, ["takes patches of 224 px, found 256 px", "trained at 0.5 µm/px, found 0.571 µm/px"]),
        (STEPS, 280, 0.5, ["was made for patches of 224 px, found 280 px: they are taken as they are"]),
        (STEPS, 256, 0.5, ["takes patches of 252 px, found 256 px: they are resized, to 0.508 µm/px"]),
        (CROPS, 256, 0.5, []),
        (CROPS, 224, 0.5, []),
        (CROPS, 512, 0.25, ["takes patches of 256 px, found 512 px: they are resized, to 0.5 µm/px"]),
        (replace(FIXED, mpp=(0.25, 2.0)), 224, 1.0, []),
        (replace(FIXED, mpp=(0.25, 2.0)), 224, 4.0, ["was trained at 0.25 to 2 µm/px, found 4 µm/px"]),
        (replace(FIXED, notes=("its licence is lost",)), 224, 0.5, ["its licence is lost"]),
    ],
)
def test_another_size_or_resolution_is_said_with_both_values(
    card: EncoderCard, px: int, mpp: float, words: list[str]
) -> None:
    found = card.misfit(px=px, mpp=mpp)
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


def test_a_card_comes_back_from_json() -> None:
    """A later version's values that are not known are left out."""
    card = replace(CROPS, mpp=(0.25, 2.0), notes=("a",))
    assert EncoderCard.from_json({**json.loads(json.dumps(card.to_json())), "colour": "blue"}) == card


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "b", "source": "y", "licence": "MIT", "revision": "1", "notes": ("n",)}, True),
        ({"digest": "0" * 64}, False),
        ({"mean": (0.4, 0.5, 0.5)}, False),
        ({"readout": "cls"}, False),
        ({"resize": 256}, False),
        ({"precision": "bfloat16"}, False),
    ],
)
def test_its_identity_is_of_what_features_depend_on(change: dict[str, object], same: bool) -> None:
    assert (replace(ANY, **change).identity == ANY.identity) is same


def test_what_was_made_otherwise_of_the_same_weights_is_another_encoder() -> None:
    """Another output of a program, another number of heads; and the fields that differ are told by name."""
    card = EncoderCard(name="a", source="s", dim=4, px=8, digest="d", mean=(0, 0, 0), std=(1, 1, 1), made="output one")
    other = replace(card, made="output two", name="b", notes=("said",))
    assert card.identity != other.identity
    assert card.unlike(other) == ["made"]
    assert card.identity == replace(card, name="b", licence="MIT").identity
