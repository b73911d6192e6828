"""A network's blocks, whatever it calls them, and which parameters go with which."""

from __future__ import annotations

import pytest
from torch import nn

from stages.encoder.layers import blocks_of, layers_of


def test_blocks_are_found_whatever_they_are_called() -> None:
    def pair() -> nn.Sequential:
        return nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))

    flat, stages, numbered = nn.Module(), nn.Module(), nn.Module()
    flat.blocks = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())
    stages.stages = nn.Sequential(pair(), pair())
    numbered.layer1, numbered.layer2 = pair(), pair()
    assert [len(blocks_of(body)) for body in (flat, stages, numbered)] == [3, 4, 4]
    with pytest.raises(ValueError, match="no blocks that are known as such"):
        blocks_of(nn.Linear(1, 1))


def test_every_parameter_is_in_one_layer() -> None:
    """Before the blocks, each block with what follows it, after the last."""
    body = nn.Module()
    body.stem, body.norm = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    body.blocks = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    body.head = nn.Linear(1, 1)
    names = {id(parameter): name for name, parameter in body.named_parameters()}
    assert [[names[id(parameter)] for parameter in layer] for layer in layers_of(body)] == [
        ["stem.weight", "norm.weight"],
        ["blocks.0.weight", "blocks.0.bias"],
        ["blocks.1.weight", "blocks.1.bias"],
        ["head.weight", "head.bias"],
    ]
