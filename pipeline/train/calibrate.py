"""How far a cohort's draws really fall from reading everything, so that a stated 95 % interval holds 95 % of the time.

A draw of 16 patches leaves a handful to chance; the variance of a handful says little, and nothing about what is rare.
So some slides are read whole once, drawn again and again at several budgets (features are kept: nothing is read twice),
and the interval's rule (`stages.prediction.intervals.Calibration`) is fitted to how far those draws really fell. Where
that is more than may be read, a part of a slide stands for it: stretches of the walk over its tissue, drawn and read as
a slide of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import reason_of
from pipeline.model.joint import spared
from pipeline.model.slide_model import SlideModel
from pipeline.model.stack import Stack, walk
from pipeline.model.values import AttentionMap, View
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
FEWEST = 4 * MOST
"""Patches that stand for a larger slide, at least: draws from fewer leave less to chance than draws from all of it."""
STRETCHES = 128
"""Of the walk over a slide, evenly along it, that its part consists of. Of 60 x 60 cells with lumps of what is rare,
1 100 in 8 stretches made intervals of 8 draws 14 % narrower than the whole did (.936 of them held), in 128 as wide."""


@torch.no_grad()
def calibrate(
    model: SlideModel,
    views: Sequence[Callable[[], View]],
    *,
    seed: int,
    say: Callable[[str], None],
    leave_out: Callable[[int, str], None] | None = None,
    patches: int | None = None,
) -> Calibration | None:
    """Fit the interval's rule to draws of slides that are read whole; None, and why is said, where draws tell nothing.

    Args:
        model: trained.
        views: slides of the kind that will be predicted, the fewer of them trained on the better.
        seed: of the draws.
        say: progress.
        leave_out: told of each slide that cannot be read whole, by its place among ``views``, and why; default: it is
            said.
        patches: to read at most, all told, as `allotted`; default: the slides are read whole.
    """
    doubled = (SMALLEST * 2**k for k in range(32))
    most, scheme = max(MOST, 8 * model.spec.samples), SCHEMES[model.spec.scheme]
    budgets = sorted({model.spec.samples, *takewhile(lambda n: n <= most and scheme.judges(n), doubled)})
    budgets = [n for n in budgets if n >= 2 * model.spec.block**2]
    generator = torch.Generator(model.drawing_device).manual_seed(seed)
    found: dict[int, list[tuple[Evidence, Tensor]]] = {n: [] for n in budgets}
    cells: list[int] = []
    shares = None if patches is None else allotted([_size(view) for view in views], patches)
    views = views if shares is None else views[: len(shares)]
    for number, view in enumerate(views, 1):
        before, one = generator.get_state(), {}
        again = True
        while again:
            again = False
            try:
                looked = view()
                part = None if shares is None else shares[number - 1]
                one = drawn_errors(model, looked, budgets, draws=DRAWS, generator=generator, most=part)
                cells.append(min(int(looked.tissue.sum()), part or looked.tissue.size))
            except SlideError as exc:  # reading all of a slide meets what training never touched
                generator.set_state(before)  # what the others draw does not depend on it
                again = spared(exc, f"when read to calibrate intervals: {reason_of(exc)}")
                if not again and leave_out is None:
                    say(f"calibrating intervals: left out: {reason_of(exc)}")
                elif not again and leave_out is not None:
                    leave_out(number - 1, f"when read to calibrate intervals: {reason_of(exc)}")
        for n, drawn in one.items():
            found[n].append(drawn)
        if number % 4 == 0 or number == len(views):
            whole = " whole" if shares is None else f", {counted(sum(cells), 'patch')}"
            say(f"calibrating intervals: read {len(cells)}/{len(views)} slides{whole}")
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
    model: SlideModel,
    view: View,
    budgets: Sequence[int],
    *,
    draws: int,
    generator: torch.Generator,
    most: int | None = None,
) -> dict[int, tuple[Evidence, Tensor]]:
    """Read a slide whole, or `part_of` it, and draw it again and again: for each budget below its number of cells, the
    draws' evidence and by how much their log-odds fell from the exhaustive ones, (draws, C)."""
    attention = model.attend(view)
    if most is not None:
        view, attention = part_of(view, attention, most, side=max(model.spec.region_cells, model.spec.block))
    every = np.flatnonzero(view.tissue)
    features = model.encode(view, every).to(model.drawing_device, torch.float32)
    place = torch.zeros(view.tissue.size, dtype=torch.int64, device=model.drawing_device)
    place[torch.from_numpy(every).to(place.device)] = torch.arange(len(every), device=place.device)
    opened: list[dict[int, Tensor]] = [{}]

    def evidence(n: int, repeats: int) -> Evidence:
        (drawn,) = model.draw([view], [attention], samples=n, generator=generator, repeats=repeats, opened=opened)
        return model.evidence(drawn, features[place[drawn.cells]])

    truth = evidence(len(every), 1).statistics
    out = {}
    for n in budgets:
        if n < len(every):
            block = max(1, min(BLOCK, BLOCK_VALUES // n**2))
            blocks = [min(block, draws - done) for done in range(0, draws, block)]
            together = joined([evidence(n, many) for many in blocks])
            out[n] = together, together.statistics - truth
    return out


def allotted(sizes: Sequence[int], patches: int) -> list[int]:
    """How many patches to read of the first slides, of so many each and of ``patches`` all told: as many slides as come
    to `FEWEST` or are read whole, one at least; what small ones leave goes to the others."""
    for count in range(len(sizes), 0, -1):
        left, given = patches, [0] * count
        for rank, i in enumerate(sorted(range(count), key=lambda i: sizes[i])):
            given[i] = min(sizes[i], left // (count - rank))
            left -= given[i]
        if count == 1 or all(n >= min(FEWEST, size) for n, size in zip(given, sizes[:count], strict=True)):
            return given
    return []


def part_of(view: View, attention: AttentionMap, most: int, *, side: int = 1) -> tuple[View, AttentionMap]:
    """At most ``most`` tissue cells of a slide, as a slide of their own on which attention sums to one: `STRETCHES`,
    evenly along the walk over the tissue; the slide itself where it has no more.

    Args:
        view, attention: the slide's.
        most: cells; one square is taken at least.
        side: of the squares of cells that are drawn together: regions or blocks.
    """
    if int(view.tissue.sum()) <= most:
        return view, attention
    rows, columns = (-(-n // side) for n in view.tissue.shape)
    grown = np.zeros((rows * side, columns * side), bool)
    grown[: view.tissue.shape[0], : view.tissue.shape[1]] = view.tissue
    held = grown.reshape(rows, side, columns, side).sum((1, 3)).ravel()
    order = walk(Stack(((rows, columns),))).numpy()
    order = order[held[order] > 0]
    chosen = np.zeros(rows * columns, bool)
    count = min(STRETCHES, len(order))
    for number, stretch in enumerate(np.array_split(order, count), 1):
        room = most * number // count - held[chosen].sum()
        chosen[stretch[held[stretch].cumsum() <= room]] = True
    if not chosen.any():
        chosen[order[0]] = True
    cells = np.kron(chosen.reshape(rows, columns), np.ones((side, side), bool))
    tissue = view.tissue & cells[: view.tissue.shape[0], : view.tissue.shape[1]]
    prior = None if view.prior is None else np.where(tissue, view.prior, 0.0)
    kept = chosen if len(attention.log_attention) == chosen.size else tissue.ravel()
    log_attention = attention.log_attention.masked_fill(
        ~torch.from_numpy(kept).to(attention.log_attention.device), -torch.inf
    )
    return (
        replace(view, tissue=tissue, prior=prior / prior.sum() if prior is not None and prior.any() else None),
        replace(attention, log_attention=log_attention.log_softmax(0)),
    )


def _size(view: Callable[[], View]) -> int:
    """Tissue cells of a slide; none of one that cannot be read, which is told when it is its turn."""
    try:
        return int(view().tissue.sum())
    except SlideError:
        return 0
