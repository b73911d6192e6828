"""What a model says of a slide when it is drawn again and again at several budgets, with few patches read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
import torch

from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from stages.prediction.conformal import WHOLE, Floats, scores_of
from stages.sampling.schemes import SCHEMES

MOST = 256
"""Budgets are the model's own and the powers of two from the fewest patches that tell an interval to this one, or to
eight times the model's own."""
DRAWS, PATCHES = 8, 256
"""Draws of a slide at each budget: so many, or as many as draw so many patches, or one."""


def budgets_of(spec: ModelSpec, *, samples: int | None = None) -> tuple[int, ...]:
    """The budgets that a model is drawn at, ``samples`` among them; `WHOLE` alone where it reads every cell."""
    if spec.exhaustive:
        return (WHOLE,)
    fewest, scheme = spec.fewest, SCHEMES[spec.scheme]
    most = max(MOST, 8 * spec.samples, samples or 0)
    doubled = takewhile(lambda n: n <= most and scheme.judges(n), (2**k for k in range(32)))
    return tuple(sorted({n for n in (spec.samples, samples or spec.samples, *doubled) if n >= fewest}))


@torch.no_grad()
def slide_scores(
    model: SlideModel,
    view: View,
    budgets: Sequence[int],
    *,
    generator: torch.Generator,
    draws: int = DRAWS,
    patches: int = PATCHES,
) -> dict[int, Floats]:
    """The scores ``1 - p`` (D, C) of D draws of one slide at each budget: as many as ``draws``, or as draw so many
    ``patches``, or one.

    All is drawn first; what was drawn is then read once. A slide of fewer cells than a budget is read whole by it, as
    it is at a prediction.
    """
    if model.spec.exhaustive:
        return {WHOLE: scores_of(model.sample(view, generator=generator).prediction.values.numpy())[None]}
    attention = model.attend(view)
    opened: list[dict[int, torch.Tensor]] = [{}]
    drawn = {}
    for n in budgets:
        repeats = min(draws, max(1, patches // n))
        (drawn[n],) = model.draw([view], [attention], samples=n, generator=generator, repeats=repeats, opened=opened)
    cells = torch.cat([one.cells.flatten() for one in drawn.values()]).unique()
    features = model.encode(view, cells.cpu().numpy()).to(model.drawing_device)
    found = {}
    for n, one in drawn.items():
        at = torch.searchsorted(cells, one.cells.contiguous())
        logits = one.logits(one.say(features[at])).mean(1)  # of the members, as at a prediction
        found[n] = scores_of(torch.softmax(logits.double(), 1).cpu().numpy())
        if not np.isfinite(found[n]).all():
            raise ValueError("logits are not finite: the checkpoint or the features are damaged")
    return found
