"""Tiny spaces of draws, enumerated: every possible draw of a scheme and its probability."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from stages.sampling import designs
from stages.sampling.designs import Draw, inclusion_probabilities
from stages.sampling.draw import draw, draw_judged
from stages.sampling.estimate import expectation

EXACT = 1e-10
UNBIASED = ("systematic", "gumbel", "iid")
INF = math.inf
# name: (attention logits, cells to draw)
CASES: dict[str, tuple[list[float], int]] = {
    "spread": ([0.3, -1.0, 0.8, 0.1, -0.5], 2),
    "three of five": ([0.3, -1.0, 0.8, 0.1, -0.5], 3),
    "one draw": ([0.3, -1.0, 0.8, 0.1], 1),
    "peaked": ([0.0, 6.0, 0.3, -1.0, 2.0], 3),
    "two peaks": ([12.0, -1.0, 12.5, 0.3, 0.0], 3),
    "one huge peak": ([0.0, 25.0, 1.0, -1.0], 2),
    "tied": ([0.0, 0.0, 0.0, 0.0, 0.0], 3),
    "tied at certainty": ([0.0, 0.0, -2.0, -2.0, -2.0], 3),
    "certain": ([2.5, 0.0, 0.4, -0.3, 0.1], 4),
    "all but one": ([0.4, -0.2, 0.0, 0.1], 3),
    "masked": ([-INF, 0.3, -INF, -1.0, 0.8], 2),
    "one cell": ([-INF, 0.7, -INF], 1),
    "fewer cells than draws": ([0.2, -INF, -0.6], 4),
}
ORDER = {3: [1, 2, 0], 4: [2, 0, 3, 1], 5: [3, 0, 4, 1, 2]}


@dataclass(frozen=True)
class Outcomes:
    """Every possible draw (a row of ``draw`` each) and its probability (M,)."""

    probability: Tensor
    draw: Draw


def logits_of(name: str) -> tuple[Tensor, int]:
    values, n = CASES[name]
    return torch.tensor(values, dtype=torch.float64), n


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def middles(probabilities: Sequence[float]) -> list[float]:
    """The middle of each outcome's stretch of [0, 1]."""
    ends = list(itertools.accumulate(probabilities))
    return [(end - p / 2) / ends[-1] for p, end in zip(probabilities, ends, strict=True)]


def whole(q: Tensor, n: int) -> Outcomes:
    return Outcomes(torch.ones(1, dtype=torch.float64), draw(q.log()[None], n, generator=generator()))


def all_iid(q: Tensor, n: int) -> Outcomes:
    middle = middles(q.tolist())
    cells = list(itertools.product(q.nonzero().flatten().tolist(), repeat=n))
    u = torch.tensor([[middle[cell] for cell in row] for row in cells], dtype=torch.float64)
    drawn = designs.iid(q.expand(len(cells), -1), u)
    assert drawn.cells.tolist() == [list(row) for row in cells]
    return Outcomes(q[drawn.cells].prod(1), drawn)


def all_gumbel(q: Tensor, n: int) -> Outcomes:
    cells = torch.tensor(list(itertools.permutations(q.nonzero().flatten().tolist(), n)))
    drawn = q[cells]
    # what is left before each draw, with nothing cancelled
    left = torch.stack([q.index_fill(0, row[:m], 0.0).sum() for row in cells for m in range(n)]).view(-1, n)
    return Outcomes((drawn / left).prod(1), Draw(cells, designs.gumbel_weights(q.expand(len(cells), -1), cells)))


def all_systematic(q: Tensor, n: int) -> Outcomes:
    order = torch.tensor(ORDER[len(q)])
    pi = inclusion_probabilities(q[None], n)[0]
    # the draw changes only where an equal step meets the end of a cell
    ends = pi[order].masked_fill(pi[order] == 1, 0.0).cumsum(0) % 1
    cuts = torch.cat([torch.tensor([0.0, 1.0]), ends]).double().sort().values
    length = cuts.diff()
    u = (cuts[:-1] + length / 2)[length > 1e-14, None]
    return Outcomes(length[length > 1e-14], designs.systematic(q.expand(len(u), -1), n, u, order))


def all_pairs(q: Tensor, n: int, most: int) -> Outcomes:
    order = torch.tensor(ORDER[len(q)])
    sure = int((inclusion_probabilities(q[None], n) > 1 - 1e-12).sum())
    sure += -1 if n - sure == 1 else (n - sure) % 2
    rest = q.scatter(0, q.topk(n).indices[:sure], 0.0)[order].tolist()
    strata = (n - sure) // 2
    step = sum(rest) / max(1, strata)
    ends = list(itertools.accumulate(rest))
    per_stratum: list[list[tuple[float, float, float, list[int]]]] = []
    for stratum in range(strata):
        low, high = stratum * step, (stratum + 1) * step
        units = [
            (int(order[i]), share)
            for i, end in enumerate(ends)
            if (share := (min(end, high) - max(end - rest[i], low)) / step) > 1e-18 and rest[i] > 0
        ]
        first = middles([share for _, share in units])
        outcomes = []
        for k, (cell, share) in enumerate(units):
            others = units[:k] + units[k + 1 :]
            left = sum(other for _, other in others)
            for (second, other), u_2 in zip(others, middles([other for _, other in others]), strict=True):
                outcomes.append((share * other / left, first[k], u_2, [cell, second]))
        per_stratum.append(outcomes)
    probability, uniforms, cells = [], [], []
    for combination in itertools.product(*per_stratum):
        for signs in itertools.product((0.25, 0.75), repeat=strata):
            probability.append(math.prod(o[0] for o in combination) / 2**strata)
            fill = [0.5] * (n // 2 - strata)
            uniforms.append([[o[1] for o in combination] + fill, [o[2] for o in combination] + fill, [*signs, *fill]])
            cells.append([cell for o in combination for cell in o[3]])
    u = torch.tensor(uniforms, dtype=torch.float64).transpose(0, 1)
    drawn = designs.pairs(q.expand(len(cells), -1), n, most, u, order)
    assert drawn.cells[:, sure:].tolist() == cells
    return Outcomes(torch.tensor(probability, dtype=torch.float64), drawn)


def all_judged(scheme: str, q: Tensor, n: int, most: int = 512) -> Outcomes:
    """Every draw that tells its variance, with its contrasts."""
    if int((q > 0).sum()) <= n:
        return Outcomes(torch.ones(1, dtype=torch.float64), draw_judged(q.log()[None], n, generator=generator()))
    if scheme == "systematic":
        return all_pairs(q, n, most)
    plain = ENUMERATE[scheme](q, n)
    cells, rows = plain.draw.cells, q.expand(len(plain.probability), -1)
    if scheme == "iid":
        middle = torch.tensor(middles(q.tolist()), dtype=torch.float64)
        return Outcomes(plain.probability, designs.judged_iid(rows, middle[cells]))
    # uniforms whose Gumbel keys come in the order of the cells
    keys = torch.full((len(cells), len(q)), -60.0, dtype=torch.float64)
    keys.scatter_(1, cells, 40.0 - torch.arange(n, dtype=torch.float64).expand(len(cells), -1))
    u = -torch.expm1(-torch.exp(q.log() - keys))
    drawn = designs.judged_gumbel(rows, n, u)
    assert torch.equal(drawn.cells, cells)
    return Outcomes(plain.probability, drawn)


def covariances(found: Outcomes, log_a: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Expected stated covariance, and the true one, of estimates with features (K, D)."""
    assert found.draw.contrasts is not None
    rows = log_a.expand(len(found.probability), -1)
    terms = rows.gather(1, found.draw.cells).exp().unsqueeze(-1) * features[found.draw.cells]
    d = found.draw.contrasts @ terms  # (M, H, D)
    stated = torch.einsum("m,mhd,mhe->de", found.probability, d, d)
    error = expectation(rows, features[found.draw.cells], found.draw) - log_a.exp() @ features
    return stated, torch.einsum("m,md,me->de", found.probability, error, error)


ENUMERATE: dict[str, Callable[[Tensor, int], Outcomes]] = {
    "systematic": all_systematic,
    "gumbel": all_gumbel,
    "iid": all_iid,
}


def outcomes_of(scheme: str, q: Tensor, n: int) -> Outcomes:
    found = whole(q, n) if int((q > 0).sum()) <= n else ENUMERATE[scheme](q, n)
    assert float(found.probability.sum()) == pytest.approx(1, abs=1e-12)
    return found


def features_for(cells: int) -> Tensor:
    return torch.randn(cells, 3, generator=generator(7), dtype=torch.float64)


Estimate = Callable[[Tensor, Tensor, Draw], Tensor]


def bias(outcomes: Outcomes, logits: Tensor, estimate: Estimate = expectation) -> tuple[float, float, float]:
    """Largest error of the expected value, feature gradient and logit gradient, all through autograd."""
    logits = logits.clone().requires_grad_()
    features = features_for(len(logits)).requires_grad_()
    log_a = logits.log_softmax(0).expand(len(outcomes.probability), -1)
    mean = outcomes.probability @ estimate(log_a, features[outcomes.draw.cells], outcomes.draw)
    exact = logits.softmax(0) @ features
    error_f, error_l = 0.0, 0.0
    for d in range(features.shape[1]):
        ours = torch.autograd.grad(mean[d], (features, logits), retain_graph=True)
        true = torch.autograd.grad(exact[d], (features, logits), retain_graph=True)
        error_f = max(error_f, float((ours[0] - true[0]).abs().max()))
        error_l = max(error_l, float((ours[1] - true[1]).abs().max()))
    return float((mean - exact).detach().abs().max()), error_f, error_l


def drawn_by(scheme: str, log_a: Tensor, n: int, seed: int = 0, order: Tensor | None = None) -> Draw:
    """A draw by any scheme; "pairs" is the one that carries the variance of systematic."""
    if scheme == "pairs":
        return draw_judged(log_a, n, generator=generator(seed), order=order)
    return draw(log_a, n, scheme=scheme, generator=generator(seed), order=order)
