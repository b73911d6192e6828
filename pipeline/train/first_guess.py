"""What a model on a frozen encoder learns before its labels count: directions, what foretells what, where to start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.reading import of_parts
from pipeline.model.values import View
from pipeline.train.slides import TrainingSlides
from stages.amounts import counted
from stages.mil.contextual import EvidencePooling

Seen = TypeVar("Seen")
FINE_CELLS = 32
"""Patches of each slide, evenly over its tissue, that tell how fine features vary and what coarse ones foretell."""
FINE_SLIDES = 64
"""Slides that they are read of."""
SAY_SECONDS = 10
"""Between two lines of progress: encoding is most of a first training."""
RIDGE = 0.1
"""Of the number of patches: what coarse features must be worth to foretell anything."""


@torch.no_grad()
def first_guess(
    model: EvidenceModel,
    slides: TrainingSlides,
    targets: Tensor,
    bags: Tensor,
    *,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Fit the directions of coarse and fine features and the control variate, and start the heads.

    The directions are those of the variation within slides; the control variate is the ridge regression of fine
    features on the cell's standardised coarse ones and its slide's mean.
    """
    encoded = 0 if model.store is None else model.store.encoded
    model.forget()
    model.coarse_whitening.fit(_each(slides, model.encode_coarse, say=say, what="coarse features"), within=True)
    order = torch.randperm(slides.count, generator=torch.Generator().manual_seed(seed)).tolist()
    some = sorted(order[:FINE_SLIDES])

    def fine(view: View) -> Tensor:
        return model.encode(view, _evenly(view, seed))

    model.whitening.fit(_each(slides, fine, of=some, say=say, what="fine features"), within=True)
    model.control.zero_()
    inputs, outputs = [], []
    for x, y in _each(slides, lambda view: _pair(model, view, seed), of=some):
        inputs.append(x)
        outputs.append(y)
    x, y = (torch.cat(parts).to(model.drawing_device).double() for parts in (inputs, outputs))
    penalty = RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    penalty[-1, -1] = 1e-9 * len(x)  # the constant
    model.control.copy_(torch.linalg.solve(x.T @ x + penalty, x.T @ y))
    left = (y - x @ model.control.to(y)).square().sum() / (y - y.mean(0)).square().sum()
    model.forget()
    seen = _Again(slides, lambda view: model.survey(view).context.cpu(), keep=model.store is None)
    generator = torch.Generator().manual_seed(seed)
    poles = model.readout.poles(targets)[seen.known]
    model.heads.start(seen, seen.sizes, poles, bags[seen.known], generator=generator)
    new = 0 if model.store is None else model.store.encoded - encoded
    fresh = "" if model.store is None else f", {_encoded(new)}"
    say(f"first guess: coarse features foretell {1 - float(left):.0%} of the fine ones' variance{fresh}")


@torch.no_grad()
def first_guess_of_all(
    model: ExhaustiveModel,
    slides: TrainingSlides,
    targets: Tensor,
    bags: Tensor,
    *,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Fit the directions of features, those of the variation within slides, and start the head where it asks for it."""
    encoded = 0 if model.store is None else model.store.encoded
    model.whitening.fit(_each(slides, model.encode_all, say=say, what="features of all cells"), within=True)
    if isinstance(model.heads, EvidencePooling):
        seen = _Again(slides, lambda view: _of_all(model, view), keep=model.store is None)
        generator = torch.Generator().manual_seed(seed)
        poles = model.readout.poles(targets)[seen.known]
        model.heads.start(seen, seen.sizes, poles, bags[seen.known], generator=generator)
    if model.store is not None and model.spec.bags is None:
        say(f"first guess: {_encoded(model.store.encoded - encoded)}")


def _encoded(new: int) -> str:
    return f"{counted(new, 'patch')} encoded, the others were known" if new else "features of all patches were known"


class _Again(Generic[Seen]):
    """What ``act`` makes of those slides that can be read, made again each time that it is asked for: of all slides of
    a cohort it would be gigabytes, and features are kept.

    Args:
        keep: keep it all the same, where features are not.

    Attributes:
        known: which slides these are.
        sizes: their tissue cells.
    """

    def __init__(self, slides: TrainingSlides, act: Callable[[View], Seen], *, keep: bool) -> None:
        self._slides, self._act = slides, act
        self._kept: dict[int, Seen] = {}
        self.known: list[int] = []
        self.sizes: list[int] = []
        for i in range(slides.count):
            found = slides.attempt(
                [i], lambda kept, views: (int(views[0].tissue.sum()), act(views[0]) if keep else None)
            )
            if found is not None:
                size, made = found[1]
                self.known.append(i)
                self.sizes.append(size)
                if made is not None:
                    self._kept[i] = made

    def __call__(self, place: int) -> Seen | None:
        """Of a slide, by its place among those; None where it cannot be read any more."""
        i = self.known[place]
        if i in self._kept:
            return self._kept[i]
        found = self._slides.attempt([i], lambda kept, views: self._act(views[0]))
        return None if found is None else found[1]


def _of_all(model: ExhaustiveModel, view: View) -> tuple[Tensor, Tensor]:
    """What the head is given of a slide, on the CPU."""
    return model.components(view, model.encode_all(view)).cpu(), torch.from_numpy(view.tissue)


def _each(
    slides: TrainingSlides,
    act: Callable[[View], Any],
    *,
    of: Sequence[int] | None = None,
    say: Callable[[str], None] | None = None,
    what: str = "",
) -> Iterator[Any]:
    """What ``act`` makes of each slide, one after the other, and of each of a patient's; those that cannot be read are
    left out."""
    chosen = range(slides.count) if of is None else of
    started = told = time.monotonic()
    for number, i in enumerate(chosen, 1):
        found = slides.attempt([i], lambda kept, views: of_parts(views[0], act))
        if found is not None:
            yield from found[1]
        now = time.monotonic()
        if say is not None and (now - told > SAY_SECONDS or number == len(chosen)):
            told = now
            left = (now - started) / number * (len(chosen) - number)
            say(f"{what}: {number}/{len(chosen)} slides, {left:.0f} s left")


def _evenly(view: View, seed: int) -> NDArray[np.int64]:
    cells = np.flatnonzero(view.tissue)
    chosen = np.random.default_rng(seed).permutation(len(cells))[:FINE_CELLS]
    return np.sort(cells[chosen])


def _pair(model: EvidenceModel, view: View, seed: int) -> tuple[Tensor, Tensor]:
    """What fine features of some patches are foretold from, and these features."""
    cells = _evenly(view, seed)
    places = np.searchsorted(np.flatnonzero(view.tissue), cells)
    return model.regressors(view)[torch.from_numpy(places).to(model.device)], model.whitening(model.encode(view, cells))
