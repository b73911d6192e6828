"""Steps on a frozen encoder: a slide of a batch that gives no features is left out, and no other in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch
from models import FROZEN
from torch import Tensor, nn

from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.values import View
from pipeline.train.fit import fit
from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard

SPEC = replace(FROZEN, classes=("a", "b"), patch_px=16, samples=6, coarse_mpp=2.0, members=3)
CARD = EncoderCard(name="corners", source="random", dim=12, px=16, step=1, mean=(0.5,) * 3, std=(0.25,) * 3)
ROWS, COLUMNS = 5, 6


class Corners(nn.Module):
    """Mean colour of each quarter of a patch; not a number where one is as red as can be."""

    def forward(self, pixels: Tensor) -> Tensor:
        found = nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)
        return torch.where(pixels[:, :1].amin((1, 2, 3))[:, None] > 1.99, torch.nan, found)


def gone() -> None:
    raise OSError("the disk is gone")


def slide(seed: int, spoilt: list[bool], how: str) -> View:
    """A slide that goes bad at the fine scale once ``spoilt`` says so."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 250, (ROWS * COLUMNS, 16, 16, 3), np.uint8)
    coarse = fine[:, ::2, ::2].copy()

    def patches(cells: np.ndarray) -> Any:
        if spoilt[0] and how == "file":
            return dask.delayed(gone)()
        return np.full_like(fine[cells], 255) if spoilt[0] and how == "features" else fine[cells]

    rgb = np.zeros((2 * ROWS, 2 * COLUMNS, 3), np.uint8)
    return View(rgb, np.ones((ROWS, COLUMNS), bool), patches, coarse=lambda cells: coarse[cells])


@pytest.mark.parametrize("how", ["file", "features"])
def test_a_slide_that_fails_amid_a_batch_is_the_one_that_is_left_out(tmp_path: Path, how: str) -> None:
    torch.manual_seed(0)
    model = EvidenceModel(SPEC, backbone=Backbone(Corners(), CARD))
    spoilt = [False]
    views = [slide(i, spoilt if i == 2 else [False], how) for i in range(4)]
    lost: list[tuple[int, str]] = []

    def say(line: str) -> None:
        spoilt[0] |= line.startswith("epoch")

    curve = fit(
        model,
        views.__getitem__,
        torch.tensor([0, 1, 0, 1]),
        checkpoint=tmp_path / "fit.ckpt",
        samples=6,
        epochs=4,
        batch_size=4,
        learning_rate=0.02,
        attention_rate=1.0,
        warm_up=0,
        weight_decay=0.0,
        entropy_weight=0.0,
        gradient_clip=1.0,
        seed=0,
        device="cpu",
        say=say,
        noise=0.1,
        leave_out=lambda i, why: lost.append((i, why)),
    )
    assert [i for i, _ in lost] == [2]
    reason = {"file": "the disk is gone", "features": "corners gives features that are no finite numbers for"}[how]
    assert reason in lost[0][1]
    assert len(curve.rows) == 4
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
