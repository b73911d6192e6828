"""Sampling schemes as pure functions: probabilities and uniforms in, cells and weights out.

Shapes: B slides, K cells, N drawn. Probabilities ``q`` (B, K) float64 sum to one and are 0 for cells that must never be
drawn; uniforms lie in [0, 1); ``order`` (K,) is the walk over the cells. In a slide of at most N cells the outcome is
meaningless: the caller takes it whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Draw:
    """Cells to read and what each counts for.

    Attributes:
        cells: (B, N) int64. A row that needs fewer than N cells repeats one of its own with weight 0.
        weights: (B, N) float64; 0 marks padding.
        contrasts: (B, H, N) float64 from `draw_judged`, None from `draw`: what was left to chance. With
            ``d_h = sum_m k_hm a_m f_m``, ``sum_h d_h d_h^T`` is an unbiased estimate of the estimate's covariance.
        regions, between: of `nest`: how many regions the cells are of, each in one run of N / regions, and how many
            contrasts, the first ones, compare regions; 0 with one level.
    """

    cells: Tensor
    weights: Tensor
    contrasts: Tensor | None = None
    regions: int = 0
    between: int = 0


def inclusion_probabilities(a: Tensor, n: int) -> Tensor:
    """``pi = min(1, c a)`` with ``sum pi = n``, or 1 for every positive cell where there are at most ``n``.

    Args:
        a: (B, K), nonnegative, any scale.
        n: cells to draw, at least 1.
    """
    top, sure = _sure(a, n)
    rest = _without(a, top, sure)
    scale = (n - sure) / rest.sum(1, keepdim=True)
    whole = (a > 0).sum(1, keepdim=True) <= n
    return torch.where((rest > 0) & ~whole, (rest * scale).clamp(max=1), (a > 0).to(a.dtype))


def iid(q: Tensor, u: Tensor) -> Draw:
    """Independent draws with replacement, one for each uniform (B, N): ``w = 1 / (N q)``."""
    cdf = q.cumsum(1)
    cells = _locate(cdf, q, u * cdf[:, -1:])
    return Draw(cells, 1 / (u.shape[1] * q.gather(1, cells)))


def gumbel(q: Tensor, n: int, u: Tensor) -> Draw:
    """The ``n`` largest of ``log q`` + Gumbel noise from uniforms (B, K), largest first: draws one by one without
    replacement (Plackett-Luce)."""
    keys = q.log() - (-torch.log1p(-u)).log()
    cells = keys.masked_fill(q == 0, -torch.inf).topk(n).indices
    return Draw(cells, gumbel_weights(q, cells))


def gumbel_weights(q: Tensor, cells: Tensor) -> Tensor:
    """``w_m = (r_m / q_m + N - 1 - m) / N`` with ``r_m = 1 - sum_{j<m} q_j`` for cells (B, N) in the order drawn.

    This averages N unbiased estimates (Des Raj's): those drawn before ``m`` at face value plus ``m`` over its
    conditional probability.
    """
    n = cells.shape[1]
    later = n - 1 - torch.arange(n, device=q.device)
    return (_left(q, cells) / q.gather(1, cells) + later) / n


def _left(q: Tensor, cells: Tensor) -> Tensor:
    """``r_m = 1 - sum_{j<m} q_j``, the mass left before each draw (B, N), from what is left and not as a difference:
    where attention peaks, nothing would be left of it."""
    undrawn = q.scatter(1, cells, 0.0).sum(1, keepdim=True)
    return undrawn + q.gather(1, cells).flip(1).cumsum(1).flip(1)


def systematic(q: Tensor, n: int, u: Tensor, order: Tensor) -> Draw:
    """Cells at ``pi = 1`` for sure, the others by equal steps along ``order`` from the start ``u`` (B, 1): ``w = 1/pi``
    with ``pi`` of `inclusion_probabilities`."""
    top, sure = _sure(q, n)
    mass = _without(q, top, sure)[:, order]
    cdf = mass.cumsum(1)
    step = cdf[:, -1:] / (n - sure).clamp(min=1)
    slot = torch.arange(n, device=q.device)
    cells = torch.where(slot < sure, top, order[_locate(cdf, mass, (slot - sure + u) * step)])
    return Draw(cells, torch.where(slot < sure, 1.0, step / q.gather(1, cells)))


def pairs(q: Tensor, n: int, most: int, u: Tensor, order: Tensor) -> Draw:
    """`systematic` with two cells from every two steps, by Murthy's design, which has an unbiased variance.

    The walk over the cells that are not sure is cut into strata of equal mass. In a stratum a first cell is drawn by
    its share ``p`` of the mass and a second one from what is left. The stratum's total is estimated by the mean of the
    two terms ``y / p``, each weighted by ``1 - p`` of the *other*, and its variance by

        ``d^2 = (y_1/p_1 - y_2/p_2)^2 (1-p_1)(1-p_2)(1-p_1-p_2) / (2-p_1-p_2)^2``

    (M. N. Murthy, "Ordered and unordered estimators in sampling without replacement", Sankhya 18, 1957). A cell on the
    border of two strata is a unit of each, with its share in either. Each pair is a contrast of its own while there are
    at most ``most``; beyond that they are dealt to so many with random signs, which leaves the variance unbiased.

    Args:
        q: (B, K).
        n: cells to draw, at least 2.
        most: contrasts at most; H = min(most, n // 2).
        u: (3, B, n // 2) uniforms: first cell, second cell, sign.
        order: (K,).
    """
    top, sure = _sure(q, n)
    odd = (n - sure) % 2
    # an odd one out joins the sure cells; but if it is alone there must be a pair for what is not sure
    sure = torch.where(n - sure == 1, sure - 1, sure + odd)
    count = (n - sure) // 2
    mass = _without(q, top, sure)[:, order]
    cdf = mass.cumsum(1)
    step = cdf[:, -1:] / count.clamp(min=1)
    low = torch.arange(n // 2, device=q.device) * step

    def unit(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cell = _locate(cdf, mass, point)
        end = cdf.gather(1, cell)
        # from the end before it, not end - mass: a cell that outweighs all before it must still begin after them
        start = torch.maximum(torch.where(cell > 0, cdf.gather(1, (cell - 1).clamp(min=0)), 0.0), low)
        return cell, start, (torch.minimum(end, low + step) - start).clamp(min=0)

    first, start, length = unit(low + u[0] * step)
    point = low + u[1] * (step - length)
    second, _, length_2 = unit(torch.where(point < start, point, point + length))
    p_1 = (length / step).clamp(max=1)
    p_2 = torch.minimum(length_2 / step, 1 - p_1)
    per_mass = step.unsqueeze(-1) / torch.stack([mass.gather(1, first), mass.gather(1, second)], -1)  # (B, n // 2, 2)
    weight = per_mass * torch.stack([1 - p_2, 1 - p_1], -1) / (2 - p_1 - p_2).unsqueeze(-1)
    spread = ((1 - p_1) * (1 - p_2) * (1 - p_1 - p_2).clamp(min=0)).sqrt() / (2 - p_1 - p_2)
    d = per_mass * torch.where(u[2] < 0.5, spread, -spread).unsqueeze(-1) * torch.tensor([1.0, -1.0]).to(q)

    slot = torch.arange(n, device=q.device)
    drawn = (slot - sure).clamp(0, n // 2 * 2 - 1)  # (B, N): which of the pairs' cells a slot holds
    picked = order[torch.stack([first, second], -1).flatten(1).gather(1, drawn)]
    cells = torch.where(slot < sure, top, picked)
    weights = torch.where(slot < sure, 1.0, weight.flatten(1).gather(1, drawn))
    d = torch.where(slot < sure, 0.0, d.flatten(1).gather(1, drawn))
    contrast = torch.arange(min(most, n // 2), device=q.device).unsqueeze(1)  # (H, 1)
    dealt = (drawn // 2 % len(contrast)).unsqueeze(1) == contrast
    return Draw(cells, weights, torch.where(dealt, d.unsqueeze(1), 0.0))


def judged_iid(q: Tensor, u: Tensor) -> Draw:
    """`iid` whose every draw is an estimate of its own, ``y / q``."""
    cells = iid(q, u).cells
    return _mean_of(cells, torch.diag_embed(1 / q.gather(1, cells)))


def judged_gumbel(q: Tensor, n: int, u: Tensor) -> Draw:
    """`gumbel` whose ``m``-th draw is an estimate of its own: those drawn before it at face value plus
    ``r_m / q_m`` times its own (D. Raj, "Some estimators in sampling with varying probabilities without replacement",
    JASA 51, 1956). They are uncorrelated, so that their spread tells the variance of their mean."""
    cells = gumbel(q, n, u).cells
    drawn = q.gather(1, cells)
    before = torch.ones(n, n, dtype=q.dtype, device=q.device).tril(-1)
    return _mean_of(cells, before + torch.diag_embed(_left(q, cells) / drawn))


def _mean_of(cells: Tensor, estimates: Tensor) -> Draw:
    """N uncorrelated estimates, each a row of weights (B, N, N) of the cells (B, N), as one draw: their mean."""
    n = cells.shape[1]
    basis = _helmert(n).to(estimates) / math.sqrt(n * (n - 1))
    return Draw(cells, estimates.mean(1), torch.einsum("bmj,mh->bhj", estimates, basis))


def topk(q: Tensor, n: int) -> Draw:
    """The ``n`` largest, weighted as if there were no others: biased."""
    top = q.topk(n)
    return Draw(top.indices, (1 / top.values.sum(1, keepdim=True)).repeat(1, n))


def nest(outer: Draw, inner: Draw, size: int, *, repeats: bool) -> Draw:
    """Draws within draws: regions, then cells inside each drawn region, as one draw over the opened cells.

    With ``A_r`` over regions and ``b_{i|r}`` inside them, weights are products, so ``sum_m w_m A_r b_i f_i`` is
    unbiased for ``sum_r A_r sum_i b_{i|r} f_i``. Its variance is that of the regions' estimated totals plus
    ``sum_r w_r`` times the variance inside region r (J. N. K. Rao, "Unbiased variance estimation for multistage
    designs", Sankhya C 37, 1975); with replacement, where a region may be opened twice, each time with another draw of
    its cells, the first term is all of it.

    Args:
        outer: (B, R) regions.
        inner: (B R, N) cells of the drawn regions, in their order.
        size: cells of a region.
        repeats: whether ``outer`` was drawn with replacement.

    Returns:
        Draw of (B, R N); cell ``r * size + i`` is cell i of the r-th *drawn* region.
    """
    batch, regions = outer.cells.shape
    n = inner.cells.shape[1]
    slot = torch.arange(regions, device=outer.cells.device).view(1, regions, 1)
    cells = (slot * size + inner.cells.view(batch, regions, n)).flatten(1)
    within = inner.weights.view(batch, regions, n)
    weights = (outer.weights.unsqueeze(-1) * within).flatten(1)
    if outer.contrasts is None or inner.contrasts is None:
        return Draw(cells, weights, regions=regions)
    between = (outer.contrasts.unsqueeze(-1) * within.unsqueeze(1)).flatten(2)  # (B, H, R N)
    own = torch.eye(regions, dtype=weights.dtype, device=weights.device)
    # a slide taken whole has w = 1 and k = 0 also among those drawn with replacement, where w^2 = sum k^2
    scale = (outer.weights.square() - outer.contrasts.square().sum(1)).clamp(min=0) if repeats else outer.weights
    inside = scale.sqrt().view(batch, regions, 1, 1) * inner.contrasts.view(batch, regions, -1, n)
    inside = (inside.unsqueeze(3) * own.view(1, regions, 1, regions, 1)).flatten(3).flatten(1, 2)
    return Draw(cells, weights, torch.cat([between, inside], 1), regions, between.shape[1])


def _helmert(r: int) -> Tensor:
    """(r, r - 1) orthonormal columns, each orthogonal to ones (Helmert)."""
    k = torch.arange(1, r, dtype=torch.float64)
    lower = torch.ones(r, r - 1, dtype=torch.float64).triu() - torch.diag_embed(k, offset=-1)[:, : r - 1]
    return lower / (k * (k + 1)).sqrt()


def _sure(q: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Cells by falling q (B, min(n, K)), and how many of the first are certain (B, 1).

    The k-th largest is certain when its share of the budget that is left, ``(n - k) q_k``, reaches the mass that is
    left, ``q_k + below``. Once it fails it fails for all smaller ones.
    """
    top = q.topk(min(n, q.shape[1]))
    rest = q.scatter(1, top.indices, 0.0).sum(1, keepdim=True)
    # summed from the smallest up, and q_k taken off both sides: nothing cancels
    below = torch.cat([rest, top.values.flip(1)], 1).cumsum(1)[:, :-1].flip(1)
    budget = n - 1 - torch.arange(top.values.shape[1], device=q.device)
    sure = (budget * top.values >= below).long().cumprod(1).sum(1, keepdim=True)
    return top.indices, sure


def _without(q: Tensor, top: Tensor, sure: Tensor) -> Tensor:
    """q with its first ``sure`` cells of ``top`` set to 0."""
    slot = torch.arange(top.shape[1], device=q.device)
    return q.scatter(1, top, q.gather(1, top).masked_fill(slot < sure, 0.0))


def _locate(cdf: Tensor, mass: Tensor, points: Tensor) -> Tensor:
    """Index of the cell in whose stretch of the cumulated mass each point (B, N) falls; never one without mass."""
    index = torch.searchsorted(cdf, points, right=True).clamp(max=cdf.shape[1] - 1)
    # rounding, at the end or in a parallel cumulated sum, may land on an empty cell: step back to one with mass
    position = torch.arange(cdf.shape[1], device=cdf.device)
    return torch.where(mass > 0, position, 0).cummax(1).values.gather(1, index)
