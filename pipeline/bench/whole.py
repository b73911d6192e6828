"""A model on a slide that was read whole: it draws and judges as ever, and reads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.slide_model import SlideModel
from pipeline.model.values import AttentionMap, PlacedDraw, View

PART = 4096
"""Cells whose features are in memory at once."""


class ReadWhole(SlideModel):
    """A model on one slide, every patch of which it has read.

    What a cell's patch says is known, so that no feature is needed any more: `encode` gives none.

    Args:
        model: in evaluation.
        attention: what it makes of the slide before it reads patches.
        said: what each cell's patch says, (rows * columns, M, C): see `AttentionMap.say`.
    """

    def __init__(self, model: SlideModel, attention: AttentionMap, said: Tensor) -> None:
        super().__init__(model.spec, calibration=model.calibration)
        self.readout = model.readout
        self.attention, self.inner, self.feature_dim = model.attention, model.inner, 1
        self._device = model.device
        # what one slide says of itself is in no sum over cells that were not read
        self.map = replace(attention, say=lambda cells, features: said[cells], shares=None)
        self.eval()

    @property
    def device(self) -> torch.device:
        """The model's: this one may have no weights of its own."""
        return self._device

    def attend(self, view: View, **_: Any) -> AttentionMap:
        """What is known."""
        return self.map

    def encode(self, view: View, cells: NDArray[np.int64]) -> Tensor:
        """Nothing, of each cell (M, 1)."""
        return torch.zeros(len(cells), 1, device=self.drawing_device)

    def logits(self, drawn: PlacedDraw) -> Tensor:
        """Estimates of the slide's logits, (B, C), from B draws."""
        nothing = torch.zeros(*drawn.cells.shape, 1, device=self.drawing_device)
        found = drawn.logits(drawn.say(nothing)).double().mean(1)
        if not bool(torch.isfinite(found).all()):
            raise ValueError("logits are not finite: the checkpoint or the features are damaged")
        return found


@torch.no_grad()
def read_whole(model: SlideModel, view: View, *, say: Callable[[str], None] = lambda line: None) -> ReadWhole:
    """Read and encode every tissue cell of a slide once; features that are kept spare it.

    Raises:
        SlideError: it cannot be read whole.
    """
    attention = model.attend(view)
    every = np.flatnonzero(view.tissue)
    said = None
    done = 0
    for part in np.array_split(every, max(1, math.ceil(len(every) / PART))):
        cells = torch.from_numpy(part).to(model.drawing_device)
        found = attention.say(cells, model.encode(view, part)).double()
        if said is None:
            said = found.new_zeros(view.tissue.size, *found.shape[1:])
        said[cells] = found
        done += len(part)
        say(f"read {done} of {len(every)} patches")
    assert said is not None
    return ReadWhole(model, attention, said)
