"""Ways to read part of a slide, which are compared: how each draws, and what it then predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.bench.whole import ReadWhole
from pipeline.model.spec import ModelSpec, task_of
from pipeline.model.values import PlacedDraw, View
from pipeline.task.task import WORDS
from stages.prediction.stopping import RISK, Decide

EVERYTHING, NOTHING = "everything", "no patch"
ATTENTION, UNIFORM, TOP = "attention", "uniform", "top-k"
TOLERANCE, DECIDE = "tolerance", "decide"
HALF = 0.5
"""What is decided: whether the second of two classes is above it."""
DRAWN_AT_ONCE = 2**22
"""Drawn cells in memory at once, times contrasts where there are any."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to read, with its setting.

    Attributes:
        name: of `EVERYTHING`, `NOTHING`, `ATTENTION` (the model's own draw), `UNIFORM` (its estimator, drawn evenly
            over the tissue), `TOP` (the cells of the largest attention, biased), `TOLERANCE` and `DECIDE` (the model's
            own draws, read on).
        setting: patches, the tolerance, or the threshold; None: there is nothing to set.
    """

    name: str
    setting: float | None = None

    @property
    def by_chance(self) -> bool:
        """Whether two draws differ."""
        return self.name in (ATTENTION, UNIFORM, TOLERANCE, DECIDE)


class Read(NamedTuple):
    """What one draw predicts, values (T,), from which cells (M,); of `DECIDE`, whether it is left undecided."""

    values: NDArray[np.float64]
    cells: NDArray[np.int64]
    undecided: bool = False


def ways_of(spec: ModelSpec, samples: Sequence[int], tolerances: Sequence[float]) -> tuple[list[Way], str | None]:
    """What a model can be read by; and what of it cannot be compared, and why, None where all can.

    Args:
        spec: the model's.
        samples: patches a slide.
        tolerances: see `SlideModel.sample`.
    """
    found = [Way(EVERYTHING), *([Way(NOTHING)] if spec.coarse_mpp is not None else [])]
    found += [Way(ATTENTION, n) for n in samples]
    if spec.inner_mpp is not None:
        left_out = "uniform, top-k, tolerance, decide: with two levels attention is known in opened regions only"
        return found, left_out
    found += [Way(name, n) for name in (UNIFORM, TOP) for n in samples] + [
        Way(TOLERANCE, value) for value in tolerances
    ]
    task = task_of(spec)
    if task.decided_first is None or not task.chances:
        return found, f"decide: a threshold of {WORDS[task.kind]} is the user's to say"
    return [*found, Way(DECIDE, HALF)], None


@torch.no_grad()
def read_by(
    way: Way,
    known: ReadWhole,
    view: View,
    *,
    draws: int,
    generator: torch.Generator,
    opened: dict[int, Tensor],
) -> Iterator[Read]:
    """What ``draws`` draws of a slide predict, or one where none is left to chance.

    Args:
        way: how to read it.
        known: the model, on this slide.
        view: the slide.
        draws: how many.
        generator: on the model's `drawing_device`.
        opened: with two levels, what is known of regions; added to.
    """
    tissue = int(view.tissue.sum())
    if way.name == NOTHING:
        yield Read(_told(known, known.map.known.double().mean(0)), np.zeros(0, np.int64))
    elif way.name in (TOLERANCE, DECIDE):
        until: dict[str, Any] = {"tolerance": way.setting}
        if way.name == DECIDE:
            task = task_of(known.spec)
            until = {"decide": Decide(HALF, RISK, list(task.decided).index(str(task.decided_first)))}
        for _ in range(draws):
            sampled = known.sample(view, generator=generator, **until)
            p = sampled.prediction.values.cpu().numpy()
            yield Read(p, sampled.cells, sampled.side == "undecided")
    else:
        n = tissue if way.name == EVERYTHING else min(tissue, int(way.setting or 0))
        left = draws if way.by_chance and n < tissue else 1
        while left:
            many = max(1, min(left, DRAWN_AT_ONCE // n**2))
            drawn = _drawn(way, known, view, n, many, generator, opened)
            for p, cells in zip(_told(known, known.logits(drawn)), drawn.cells.cpu().numpy(), strict=True):
                yield Read(p, np.unique(cells))
            left -= many


def _drawn(
    way: Way,
    known: ReadWhole,
    view: View,
    n: int,
    many: int,
    generator: torch.Generator,
    opened: dict[int, Tensor],
) -> PlacedDraw:
    attention = known.map
    if way.name == UNIFORM:
        even = torch.from_numpy(view.tissue.ravel() / view.tissue.sum()).to(known.drawing_device)
        attention = attention.drawn_by(even, 1.0)
    top = way.name == TOP
    (drawn,) = known.draw(
        [replace(view, prior=None)],
        [attention],
        samples=n,
        generator=generator,
        scheme="topk" if top else None,
        judged=not top,
        repeats=many,
        opened=[opened],
    )
    return drawn


def _told(known: ReadWhole, logits: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = known.readout.told(logits.double()).cpu().numpy()
    return found
