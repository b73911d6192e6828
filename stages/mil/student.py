"""What coarse features foretell of a teacher: where it will look, what it will find there, and how far that matters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

HIDDEN = 64
"""Length of what is between: with a few dozen slides more learns them by heart."""


class Foretold(NamedTuple):
    """Of a slide's n cells: log of how much each moves the prediction, (n,), up to a constant; the teacher's attention,
    log, summing to one, (n,); and what a cell adds to the logits where attention is 1, (n, C)."""

    size: Tensor
    log_attention: Tensor
    said: Tensor


class Student(nn.Module):
    """Members of one hidden layer each from what the coarse scale tells of a cell; together they say their mean.

    Args:
        members: how many.
        inputs: length of what is told of a cell.
        classes: C.
        dropout: share of the inputs and of the hidden numbers that training does without.
    """

    def __init__(self, *, members: int, inputs: int, classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            nn.Sequential(
                *(nn.Dropout(dropout), nn.Linear(inputs, HIDDEN), nn.ReLU()),
                *(nn.Dropout(dropout), nn.Linear(HIDDEN, 2 + classes)),
            )
            for _ in range(members)
        )

    def forward(self, context: Tensor, member: int | None = None) -> Foretold:
        """What the coarse scale tells of all cells of a slide, (n, inputs) -> what one member says of it, or all."""
        asked = self.members if member is None else [self.members[member]]
        found = torch.stack([layers(context) for layers in asked]).mean(0)
        return Foretold(found[:, 0], found[:, 1].log_softmax(0), found[:, 2:])


def log_proposal(foretold: Foretold, uniform: float) -> Tensor:
    """Log of what cells are drawn by, (n,) float64: ``(1 - uniform) softmax(size) + uniform / n``."""
    size = foretold.size.double().log_softmax(0)
    even = torch.full_like(size, uniform / len(size))
    return torch.logaddexp(size + torch.log1p(torch.tensor(-uniform, dtype=torch.float64)), even.log())
