"""Attention map -> draw: cells to read and what each counts for.

A draw is ``i_1 .. i_N`` with *detached* weights ``w_m`` such that ``E[sum_m w_m 1{i_m = i}] = 1`` for every cell; what
it then estimates is `stages.sampling.estimate`. Schemes (`stages.sampling.schemes`) differ only in how they draw and in
``w``. Everything is batched: B slides of K cells, of which those that are no tissue have a log attention of -inf and
are never drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.sampling.designs import Draw
from stages.sampling.schemes import DEFAULT, SCHEMES, listed

LOG_FLOOR = -600.0
"""Smallest log-probability to draw with. Any positive proposal is unbiased, and this one keeps 1/q within float64."""

NO_FLOAT64 = ("mps",)
"""Kinds of device that know no float64: Apple's."""


def drawing_device(device: torch.device) -> torch.device:
    """Where to draw, and to sum what was drawn, for a model on ``device``: there, or on the CPU where it has no
    float64, without which a million cells tie."""
    return torch.device("cpu") if device.type in NO_FLOAT64 else device


@torch.no_grad()
def draw(
    log_attention: Tensor,
    n: int,
    *,
    scheme: str = DEFAULT,
    generator: torch.Generator | Sequence[torch.Generator],
    log_proposal: Tensor | None = None,
    order: Tensor | None = None,
) -> Draw:
    """Draw ``n`` cells of every slide; a slide of at most ``n`` cells is taken whole, with weights 1.

    Args:
        log_attention: (B, K), log-softmax over each slide's cells, of any float dtype; no gradient is needed.
        n: cells to draw, at least 1.
        scheme: a name in `SCHEMES`. All are unbiased but ``topk``; `stages.sampling.designs` has each one's ``w``.
        generator: on the device of ``log_attention``; one for all slides, or one for each, which then draws what it
            would alone.
        log_proposal: (B, K), log q up to a constant; a itself by default. Whatever is positive where a is keeps the
            estimate unbiased: a stale attention map, or one that favours cheap reads.
        order: (K,), the walk of ``systematic``; by index by default. Neighbours in it should look alike:
            `stages.sampling.walk.hilbert_order`.

    Returns:
        Draw of (B, N) with N = n, or the cells of the largest slide if that is fewer.

    Raises:
        ValueError: NaN or +inf, a slide without cells, n < 1, an unknown scheme, a proposal that misses cells, or an
            order or a generator that does not fit.
    """
    q, order = _checked(log_attention, n, scheme, generator, log_proposal, order)
    support = (q > 0).sum(1, keepdim=True)
    if bool((support <= n).all()):
        return _whole(q, int(support.max()))
    return _where(support <= n, _whole(q, n), SCHEMES[scheme].draw(q, n, order, generator))


@torch.no_grad()
def draw_judged(
    log_attention: Tensor,
    n: int,
    *,
    scheme: str = DEFAULT,
    generator: torch.Generator,
    log_proposal: Tensor | None = None,
    order: Tensor | None = None,
) -> Draw:
    """Draw ``n`` cells of every slide such that they also tell how sure they are; arguments as in `draw`.

    The draw carries contrasts (`Draw.contrasts`), whose squares sum to an unbiased variance. A single random start has
    none, so ``systematic`` draws two cells from every two steps of the walk instead (`designs.pairs`): a contrast for
    each pair. Of the other schemes every draw is an estimate of its own, uncorrelated with the others: n - 1 contrasts.

    A slide of at most ``n`` cells is taken whole, and its contrasts are 0.

    Raises:
        ValueError: as `draw`; also a scheme that is biased, n below 2, and more draws than the scheme judges.
    """
    q, order = _checked(log_attention, n, scheme, generator, log_proposal, order)
    how = SCHEMES[scheme]
    if how.judged is None:
        raise ValueError(f"{scheme} cannot tell its bias, and so no variance: use {listed()}")
    support = (q > 0).sum(1, keepdim=True)
    if bool((support <= n).all()):
        whole = _whole(q, int(support.max()))
        return Draw(whole.cells, whole.weights, whole.weights.new_zeros(len(q), 1, whole.cells.shape[1]))
    if n < 2:
        raise ValueError(f"a variance needs at least 2 cells a slide: raise n = {n}")
    if not how.judges(n):
        most = how.most_judged
        raise ValueError(f"the variance of {scheme} is told for at most {most} draws, got {n}: use {DEFAULT}")
    return _where(support <= n, _whole(q, n), how.judged(q, n, order, generator))


def _checked(
    log_attention: Tensor,
    n: int,
    scheme: str,
    generator: torch.Generator | Sequence[torch.Generator],
    log_proposal: Tensor | None,
    order: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Proposal probabilities (B, K) float64, 0 exactly where the attention is at -inf; and the walk (K,)."""
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}: one of {', '.join(SCHEMES)}")
    if n < 1:
        raise ValueError(f"at least one cell must be drawn, got n = {n}")
    if log_attention.ndim != 2:
        raise ValueError(f"log_attention must be (slides, cells), got shape {tuple(log_attention.shape)}")
    each = [generator] if isinstance(generator, torch.Generator) else generator
    if not isinstance(generator, torch.Generator) and len(generator) != len(log_attention):
        raise ValueError(f"{len(log_attention)} slides need one generator or as many, got {len(generator)}")
    for one in each:
        if one.device.type != log_attention.device.type:
            raise ValueError(f"attention is on {log_attention.device} but the generator on {one.device}: match them")
    outside = log_attention == -torch.inf
    _check_logits("log_attention", log_attention)
    if bool(outside.all(1).any()):
        row = int(outside.all(1).nonzero()[0])
        raise ValueError(f"row {row} of log_attention has no cell to draw: leave out slides without tissue")
    proposal = log_attention
    if log_proposal is not None:
        if SCHEMES[scheme].judged is None:
            raise ValueError(f"{scheme} is biased whatever it draws from: leave out log_proposal")
        if log_proposal.shape != log_attention.shape:
            raise ValueError(f"log_proposal must be {tuple(log_attention.shape)}, got {tuple(log_proposal.shape)}")
        _check_logits("log_proposal", log_proposal)
        if bool(((log_proposal == -torch.inf) & ~outside).any()):
            raise ValueError(
                "log_proposal is -inf where log_attention is not, which biases the draw: give it some share"
            )
        proposal = log_proposal
    log_q = proposal.double().masked_fill(outside, -torch.inf).log_softmax(1)
    q = log_q.clamp(min=LOG_FLOOR).exp().masked_fill(outside, 0.0)
    cells = q.shape[1]
    if order is None:
        return q, torch.arange(cells, device=q.device)
    order = order.to(q.device)
    if order.shape != (cells,) or not torch.equal(order.sort().values, torch.arange(cells, device=q.device)):
        raise ValueError(f"order must be a permutation of {cells} cells, got shape {tuple(order.shape)}")
    return q, order


def _check_logits(name: str, values: Tensor) -> None:
    for what, bad in (("NaN", values.isnan()), ("+inf", values == torch.inf)):
        if bool(bad.any()):
            row, cell = bad.nonzero()[0].tolist()
            raise ValueError(f"{name} is {what} at row {row}, cell {cell}: expected a log-softmax, -inf off the tissue")


def _whole(q: Tensor, width: int) -> Draw:
    """Every cell of the slides that have at most ``width``, with weights 1, the largest first."""
    cells = q.topk(width).indices
    inside = torch.arange(width, device=q.device) < (q > 0).sum(1, keepdim=True)
    return Draw(torch.where(inside, cells, cells[:, :1]), inside.double())


def _where(whole: Tensor, this: Draw, other: Draw) -> Draw:
    """Rows of ``this``, where nothing is left to chance, where ``whole`` (B, 1) holds, of ``other`` elsewhere."""
    weights = torch.where(whole, this.weights, other.weights)
    cells = torch.where(whole, this.cells, other.cells)
    if other.contrasts is None:
        return Draw(cells, weights)
    return Draw(cells, weights, torch.where(whole.unsqueeze(-1), 0.0, other.contrasts))
