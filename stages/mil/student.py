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
    """One hidden layer from what the coarse scale tells of a cell.

    Args:
        inputs: length of that.
        classes: C.
        dropout: share of the inputs and of the hidden numbers that training does without.
    """

    def __init__(self, *, inputs: int, classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Dropout(dropout), nn.Linear(inputs, HIDDEN), nn.ReLU()),
            *(nn.Dropout(dropout), nn.Linear(HIDDEN, 2 + classes)),
        )

    def forward(self, context: Tensor) -> Foretold:
        """What the coarse scale tells of all cells of a slide, (n, inputs)."""
        found = self.layers(context)
        return Foretold(found[:, 0], found[:, 1].log_softmax(0), found[:, 2:])


def log_proposal(foretold: Foretold, uniform: float) -> Tensor:
    """Log of what cells are drawn by, (n,) float64: ``(1 - uniform) softmax(size) + uniform / n``."""
    size = foretold.size.double().log_softmax(0)
    even = torch.full_like(size, uniform / len(size))
    return torch.logaddexp(size + torch.log1p(torch.tensor(-uniform, dtype=torch.float64)), even.log())
