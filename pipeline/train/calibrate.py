"""How far a cohort's draws really fall from reading everything, so that a stated 95 % interval holds 95 % of the time.

A draw of 16 patches leaves a handful to chance; the variance of a handful says little, and nothing about what is rare.
So some slides are read whole once, drawn again and again at several budgets (features are kept: nothing is read twice),
and the interval's rule (`stages.prediction.intervals.Calibration`) is fitted to how far those draws really fell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import reason_of
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import View
from stages.amounts import counted
from stages.prediction.intervals import Calibration, Evidence, fit_calibration, joined
from stages.prediction.stopping import FIRST_LOOK
from stages.sampling.schemes import SCHEMES
from stages.slide.facts import SlideError

DRAWS = 100
"""Draws of every slide at every budget."""
BLOCK, BLOCK_VALUES = 100, 2**26
"""Draws that are made together, and contrasts of theirs at most: what bounds the memory."""
SMALLEST, MOST = FIRST_LOOK, 256
"""Budgets are the model's own and the powers of two from the one to the other, or to eight times the model's own: what
users ask for, and what `--tolerance` and `--decide` come to; as far as the scheme tells intervals."""


@torch.no_grad()
def calibrate(
    model: SlideModel,
    views: Sequence[Callable[[], View]],
    *,
    seed: int,
    say: Callable[[str], None],
    leave_out: Callable[[int, str], None] | None = None,
) -> Calibration | None:
    """Fit the interval's rule to draws of slides that are read whole; None, and why is said, where draws tell nothing.

    Args:
        model: trained.
        views: slides of the kind that will be predicted, the fewer of them trained on the better.
        seed: of the draws.
        say: progress.
        leave_out: told of each slide that cannot be read whole, by its place among ``views``, and why; default: it is
            said.
    """
    doubled = (SMALLEST * 2**k for k in range(32))
    most, scheme = max(MOST, 8 * model.spec.samples), SCHEMES[model.spec.scheme]
    budgets = sorted({model.spec.samples, *takewhile(lambda n: n <= most and scheme.judges(n), doubled)})
    budgets = [n for n in budgets if n >= 2 * model.spec.block**2]
    generator = torch.Generator(model.drawing_device).manual_seed(seed)
    found: dict[int, list[tuple[Evidence, Tensor]]] = {n: [] for n in budgets}
    cells: list[int] = []
    for number, view in enumerate(views, 1):
        before, one = generator.get_state(), {}
        try:
            looked = view()
            one = drawn_errors(model, looked, budgets, draws=DRAWS, generator=generator)
            cells.append(int(looked.tissue.sum()))
        except SlideError as exc:  # reading all of a slide meets what training never touched
            generator.set_state(before)  # what the others draw does not depend on it
            if leave_out is None:
                say(f"calibrating intervals: left out: {reason_of(exc)}")
            else:
                leave_out(number - 1, f"when read whole to calibrate intervals: {reason_of(exc)}")
        for n, drawn in one.items():
            found[n].append(drawn)
        if number % 4 == 0 or number == len(views):
            say(f"calibrating intervals: read {len(cells)}/{len(views)} slides whole")
    fitted = fit_calibration({n: parts for n, parts in found.items() if parts})
    if fitted is None:
        why = _nothing_drawn(cells, budgets[0], model.spec.patch_px * model.spec.patch_mpp)
        say(f"calibrating intervals: {why}, so they are not calibrated: each draw tells for itself")
    return fitted


def _nothing_drawn(cells: Sequence[int], fewest: int, side_um: float) -> str:
    """Why slides of so many cells tell nothing of draws."""
    if not cells:
        return "no slide could be read whole"
    if max(cells) > fewest:
        return "draws left nothing to chance"
    return (
        f"the largest slide has {counted(max(cells), 'patch')} with tissue, {side_um:.4g} µm wide, and drawing takes "
        f"one of more than {fewest}"
    )


def drawn_errors(
    model: SlideModel, view: View, budgets: Sequence[int], *, draws: int, generator: torch.Generator
) -> dict[int, tuple[Evidence, Tensor]]:
    """Read a slide whole and draw it again and again: for each budget below its number of cells, the draws' evidence
    and by how much their log-odds fell from the exhaustive ones, (draws, C)."""
    every = np.flatnonzero(view.tissue)
    features = torch.zeros(view.tissue.size, model.feature_dim, device=model.drawing_device)
    features[torch.from_numpy(every).to(model.drawing_device)] = model.encode(view, every).to(features)
    attention = model.attend(view)
    opened: list[dict[int, Tensor]] = [{}]

    def evidence(n: int, repeats: int) -> Evidence:
        (drawn,) = model.draw([view], [attention], samples=n, generator=generator, repeats=repeats, opened=opened)
        return model.evidence(drawn, features[drawn.cells])

    truth = evidence(len(every), 1).statistics
    out = {}
    for n in budgets:
        if n < len(every):
            block = max(1, min(BLOCK, BLOCK_VALUES // n**2))
            blocks = [min(block, draws - done) for done in range(0, draws, block)]
            together = joined([evidence(n, many) for many in blocks])
            out[n] = together, together.statistics - truth
    return out
