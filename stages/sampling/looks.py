"""Looks at a slide, each drawn from what the ones before left unread, as one draw in which every read counts.

Before look r the cells ``R`` are read, and the look draws from the rest by the same measure. Its estimate

    ``T_r = sum_{i in R} a_i f_i + sum_m w_m a_{i_m} f_{i_m}``

is unbiased whatever was read and found before. So ``T_r - Phi`` are martingale differences, and with shares ``s_r``
that sum to one, ``sum_r s_r T_r`` is unbiased, of variance ``sum_r s_r^2 v_r``. The shares are set before the *first*
look: with ``s_r = c_r / sum c`` and a ``c_2`` that goes by what look 1 happened to read, look 1 would weigh by its own
outcome, and be biased. The best are as ``1 / v_r``, of which what depends on the draw is known beforehand: with the
probabilities ``pi_r`` that a cell is read by look r, and patches that differ by 1 at random,

    ``v_r = sum_i a_i^2 (1 - pi_{r-1,i}) (1 - pi_{r,i}) / (pi_{r,i} - pi_{r-1,i})``,

which is Hajek's ``sum_i a_i^2 (1 / pi_i - 1)`` of the cells that are likely unread (J. Hajek, "Asymptotic theory of
rejective sampling", Annals of Mathematical Statistics 35, 1964). Where a look reads all that is left, it is 0, and the
estimate exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.sampling.designs import Draw, inclusion_probabilities
from stages.sampling.schemes import MOST_CONTRASTS


def foreseen_variances(log_attention: Tensor, totals: Sequence[int]) -> list[float]:
    """``v_r`` of looks after which so many cells of (K,) are read, -inf off the tissue."""
    a = log_attention.detach().double().exp()[None]
    before, out = torch.zeros_like(a), []
    for total in totals:
        after = inclusion_probabilities(a, total)
        open_ones = (a > 0) & (after < 1)  # every total makes them likelier
        v = a.square() * (1 - before) * (1 - after) / (after - before)
        out.append(float(v[open_ones].sum()))
        before = after
    return out


def look_shares(variances: Sequence[float]) -> list[float]:
    """Shares ``c_r / sum c`` of looks of these foreseen variances; the last that leaves nothing open has all."""
    sure = [r for r, v in enumerate(variances) if v == 0]
    if sure:
        return [float(r == sure[-1]) for r in range(len(variances))]
    least = min(variances)
    worth = [least / v for v in variances]
    return [c / sum(worth) for c in worth]


def combine(looks: Sequence[Draw], shares: Sequence[float], *, afresh: bool = False) -> Draw:
    """Looks as one draw, whose estimate is the looks' sum by ``shares`` (which sum to one, of estimates of the same),
    and with its contrasts.

    A cell of look r weighs ``share_r w`` and, as it is read ever after, the shares of all later looks. Contrasts of
    different looks are uncorrelated: where there are many, they share rows.

    Args:
        looks: each (B, N_r), judged; with two levels each of the same number of regions and more, in runs.
        shares: (R,).
        afresh: looks are independent draws from all cells, and none counts on what an earlier one read.
    """
    if len(looks) == 1:
        return looks[0]
    runs = max(_run(one) for one in looks)
    looks = [_padded(one, runs) for one in looks]
    later = [0.0 if afresh else sum(shares[r + 1 :]) for r in range(len(looks))]
    weights = [s * one.weights + more * _first(one.cells) for one, s, more in zip(looks, shares, later, strict=True)]
    regions = sum(one.regions for one in looks)
    # those that compare regions come first
    between = _stacked([_scaled(one, s)[:, : one.between] for one, s in zip(looks, shares, strict=True)])
    inside = _stacked([_scaled(one, s)[:, one.between :] for one, s in zip(looks, shares, strict=True)])
    contrasts = torch.cat([between, inside], 1)
    cells = torch.cat([one.cells for one in looks], 1)
    return Draw(cells, torch.cat(weights, 1), contrasts, regions, between.shape[1])


def _run(one: Draw) -> int:
    return one.cells.shape[1] // one.regions if one.regions else 1


def _padded(one: Draw, length: int) -> Draw:
    """The same with runs of so many cells: what is added repeats a run's first cell with weight 0."""
    if not one.regions or _run(one) == length:
        return one
    assert one.contrasts is not None
    runs = (one.regions, _run(one))
    cells, more = one.cells.unflatten(1, runs), length - runs[1]
    cells = torch.cat([cells, cells[..., :1].expand(*cells.shape[:2], more)], 2).flatten(1)
    weights = torch.nn.functional.pad(one.weights.unflatten(1, runs), (0, more)).flatten(1)
    contrasts = torch.nn.functional.pad(one.contrasts.unflatten(2, runs), (0, more)).flatten(2)
    return Draw(cells, weights, contrasts, one.regions, one.between)


def _first(cells: Tensor) -> Tensor:
    """1.0 at each different cell's first place in (B, N), 0.0 where it is repeated."""
    ordered = cells.sort(dim=1, stable=True)
    new = ordered.values.diff(dim=1, prepend=ordered.values[:, :1] - 1) != 0
    return torch.zeros_like(cells, dtype=torch.float64).scatter(1, ordered.indices, new.double())


def _scaled(one: Draw, share: float) -> Tensor:
    assert one.contrasts is not None, "the draw must be judged"
    return share * one.contrasts


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Contrasts (B, H_r, N_r) of looks as (B, H, sum N_r), each look's in rows of their own while they are few."""
    rows = min(sum(part.shape[1] for part in parts), max(MOST_CONTRASTS, *(part.shape[1] for part in parts)))
    out = parts[0].new_zeros(len(parts[0]), rows, sum(part.shape[2] for part in parts))
    row = column = 0
    for part in parts:
        height, width = part.shape[1:]
        out[:, (torch.arange(height, device=out.device) + row) % max(rows, 1), column : column + width] = part
        row, column = row + height, column + width
    return out
