"""Patches that are drawn and read some steps before they are used: the same estimate, the same on every machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch
from models import TINY, sampler_model
from torch import Tensor

from pipeline.model.values import View
from pipeline.train.fit import fit
from pipeline.train.steps import DivergedError
from stages.slide.facts import SlideError

ROWS, COLUMNS = 10, 9
OPTIONS: dict[str, Any] = {
    "samples": 8,
    "epochs": 3,
    "batch_size": 2,
    "learning_rate": 1e-2,
    "attention_rate": 1.0,
    "warm_up": 0,
    "weight_decay": 0.0,
    "entropy_weight": 0.01,
    "gradient_clip": 1.0,
    "seed": 0,
    "device": "cpu",
}


def slide(seed: int, read: Callable[[], None] = lambda: None) -> View:
    rng = np.random.default_rng(seed)
    shades = rng.integers(40, 256, (ROWS * COLUMNS, 1, 1, 3))
    pixels = (shades * rng.uniform(0.7, 1, (ROWS * COLUMNS, 32, 32, 1))).astype(np.uint8)
    rgb = shades.reshape(ROWS, COLUMNS, 3).repeat(4, 0).repeat(4, 1).astype(np.uint8)

    def patches(cells: np.ndarray) -> Any:
        def taken() -> np.ndarray:
            read()
            return pixels[cells]

        return dask.delayed(taken)()

    prior = rng.random((ROWS, COLUMNS)) if seed == 1 else None
    return View(rgb, np.ones((ROWS, COLUMNS), bool), patches, prior=None if prior is None else prior / prior.sum())


def learnt(path: Path, *, read: Callable[[], None] = lambda: None, **how: Any) -> tuple[Tensor, list[float]]:
    """Weights, and the loss of each epoch."""
    model = sampler_model(TINY, spread=10)
    views = [slide(seed, read) for seed in range(5)]
    options = OPTIONS | {"say": lambda line: None} | how
    curve = fit(model, views.__getitem__, torch.tensor([0, 1, 2, 0, 1]), checkpoint=path, **options)
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach(), [row["loss"] for row in curve.rows]


@pytest.mark.parametrize("read_ahead", [1, 2, 7])
def test_where_nothing_moves_the_same_is_drawn_as_step_by_step(tmp_path: Path, read_ahead: int) -> None:
    """Over the ends of epochs, too, and where all of an epoch is read ahead."""
    still = {"learning_rate": 1e-12, "turn": False}
    _, before = learnt(tmp_path / "a.ckpt", **still)
    _, ahead = learnt(tmp_path / "b.ckpt", read_ahead=read_ahead, **still)
    assert ahead == pytest.approx(before, abs=1e-6)


def test_the_same_seed_learns_the_same_however_fast_reading_is(tmp_path: Path) -> None:
    """And not what another number of steps ahead does."""
    turn = np.random.default_rng(0)
    slow, losses = learnt(tmp_path / "a.ckpt", read=lambda: time.sleep(turn.uniform(0, 0.02)), read_ahead=2)
    with dask.config.set(num_workers=1):
        fast, same = learnt(tmp_path / "b.ckpt", read_ahead=2)
    assert torch.equal(slow, fast)
    assert losses == same
    assert not torch.equal(slow, learnt(tmp_path / "c.ckpt", read_ahead=1)[0])


def test_what_goes_on_after_a_kill_draws_what_it_would_have(tmp_path: Path) -> None:
    whole, _ = learnt(tmp_path / "a.ckpt", read_ahead=2)

    def dies(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learnt(tmp_path / "b.ckpt", read_ahead=2, say=dies)
    again, _ = learnt(tmp_path / "b.ckpt", read_ahead=2)
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("spec", "prior"), [({}, False), ({"block": 3}, False), ({"control": True}, True), ({"scheme": "iid"}, True)]
)
def test_draws_of_an_earlier_attention_estimate_what_the_present_one_reads(spec: dict[str, Any], prior: bool) -> None:
    """Without bias in value and in the attention's gradient; the tolerance is four standard errors of 150 draws."""
    before, now = (sampler_model(replace(TINY, **spec), spread=spread) for spread in (3, 2))
    view = slide(1 if prior else 2)
    generator = torch.Generator().manual_seed(0)

    def logits(**how: Any) -> Tensor:
        return now([view], generator=generator, **how).logits[0, 0]

    def told(found: Tensor) -> Tensor:
        now.zero_grad()
        (found * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        slope = now.attention.logit.weight.grad
        assert slope is not None
        return torch.cat([found.detach(), slope.flatten()])

    exact, found = told(logits(samples=90)), []
    for _ in range(150):
        with torch.no_grad():
            maps = before.attend_all([view])
            drawn = before.draw([view], maps, samples=18, generator=generator, judged=False)
        found.append(told(logits(samples=18, draws=[one.draw for one in drawn])))
    values = torch.stack(found)
    assert ((values.mean(0) - exact).abs() < 4 * values.std(0) / 150**0.5 + 1e-6).all()


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_training_that_diverges_says_so(tmp_path: Path, epochs: int) -> None:
    """Where the last step of an epoch spoils the weights, what the next one begins with cannot be drawn."""
    with pytest.raises(DivergedError, match=r"training diverged in epoch 1: .*run it again with a lower"):
        learnt(tmp_path / "a.ckpt", read_ahead=2, batch_size=5, learning_rate=1e30, epochs=epochs)


def test_a_slide_that_cannot_be_read_ahead_is_left_out_alone(tmp_path: Path) -> None:
    reads, lost = [0], list[tuple[int, str]]()

    def read() -> None:
        reads[0] += 1
        if reads[0] > 3:  # for the features' scale, and in two epochs
            raise SlideError("s1.svs: a tile is damaged")

    views = [slide(i, read if i == 1 else lambda: None) for i in range(4)]

    options = OPTIONS | {"epochs": 4, "read_ahead": 1, "batch_size": 4}
    curve = fit(
        sampler_model(TINY),
        views.__getitem__,
        torch.tensor([0, 1, 2, 0]),
        checkpoint=tmp_path / "fit.ckpt",
        say=lambda line: None,
        leave_out=lambda i, why: lost.append((i, why)),
        **options,
    )
    assert len(curve.rows) == 4
    assert [i for i, _ in lost] == [1]
    assert lost[0][1].startswith("in epoch 3: s1.svs: a tile is damaged")
