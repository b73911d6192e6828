"""Every scheme is unbiased by exact enumeration of a tiny space, and right where enumeration cannot reach."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from stages.sampling import designs
from stages.sampling.draw import (
    SCHEMES,
    Draw,
    draw,
    draw_judged,
    entropy,
    expectation,
    hard_bound,
    hilbert_order,
    inclusion_probabilities,
    nest,
    smooth,
)

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


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", UNBIASED)
class TestEnumeration:
    def test_value_and_gradients_are_unbiased(self, scheme: str, case: str) -> None:
        """Value, feature gradient and logit gradient average to those of reading every cell."""
        logits, n = logits_of(case)
        assert max(bias(outcomes_of(scheme, logits.softmax(0), n), logits)) < EXACT

    def test_any_proposal_is_unbiased(self, scheme: str, case: str) -> None:
        """Also when cells are drawn by something else than the attention."""
        logits, n = logits_of(case)
        other = torch.tensor([0.9, -0.4, 0.0, -1.3, 0.5], dtype=torch.float64)[: len(logits)]
        q = other.masked_fill(logits == -INF, -INF).softmax(0)
        assert max(bias(outcomes_of(scheme, q, n), logits)) < EXACT

    @pytest.mark.parametrize("most", [1, 512])
    def test_the_stated_variance_is_unbiased(self, scheme: str, case: str, most: int) -> None:
        """Draws that tell their variance are unbiased, and so is their covariance; also with pairs dealt together."""
        logits, n = logits_of(case)
        if n < 2 < int((logits > -INF).sum()):
            with pytest.raises(ValueError, match=f"raise n = {n}"):
                draw_judged(logits.log_softmax(0)[None], n, scheme=scheme, generator=generator())
            return
        found = all_judged(scheme, logits.softmax(0), n, most)
        assert float(found.probability.sum()) == pytest.approx(1, abs=1e-12)
        assert max(bias(found, logits)) < EXACT
        stated, true = covariances(found, logits.log_softmax(0), features_for(len(logits)))
        assert float((stated - true).abs().max()) < EXACT

    def test_a_control_variate_keeps_everything_unbiased(self, scheme: str, case: str) -> None:
        """Value and both gradients, whatever the control; the stated variance is that of what the control leaves."""
        logits, n = logits_of(case)
        control = torch.randn(len(logits), 3, generator=generator(11), dtype=torch.float64)
        outcomes = outcomes_of(scheme, logits.softmax(0), n)
        rows = control.expand(len(outcomes.probability), -1, -1)

        def estimate(log_a: Tensor, features: Tensor, drawn: Draw) -> Tensor:
            return expectation(log_a, features, drawn, control=rows)

        assert max(bias(outcomes, logits, estimate)) < EXACT
        if scheme != "systematic" and n > 1:  # the spread of what is left, not of the features
            found = all_judged(scheme, logits.softmax(0), n)
            features = features_for(len(logits))
            stated, _ = covariances(found, logits.log_softmax(0), features - control)
            log_a = logits.log_softmax(0).expand(len(found.probability), -1)
            value = expectation(
                log_a, features[found.draw.cells], found.draw, control=control.expand(len(log_a), -1, -1)
            )
            error = value - logits.softmax(0) @ features
            assert float((stated - torch.einsum("m,md,me->de", found.probability, error, error)).abs().max()) < EXACT


NESTED: dict[str, tuple[list[float], list[list[float]], int, int]] = {
    # name: (logits of the regions, logits of the cells inside each, regions to draw, cells to draw in each)
    "spread": ([0.3, -0.6, 0.5], [[0.2, -0.4, 0.9], [1.0, 0.0, -0.5], [-0.3, 0.4, 0.1]], 2, 2),
    "a certain region": (
        [3.0, -0.6, 0.5, 0.0],
        [[0.2, -0.4, 0.9], [4.0, 0.0, -INF], [0.0, 0.0, -INF], [1.0, -INF, 2.0]],
        3,
        2,
    ),
    "all regions opened": ([0.3, -0.6], [[0.2, -0.4, 0.9], [1.0, 0.0, -0.5]], 3, 2),
    "masked": ([0.3, -INF, -0.5, 0.1], [[0.2, -INF, 0.9], [0.0, 0.0, 0.0], [0.5, -INF, -INF], [0.1, 0.3, 0.2]], 2, 2),
    "every cell of a region": ([0.3, -0.6, 0.5], [[0.2, -0.4], [1.0, 0.0], [-0.3, 0.4]], 2, 2),
}


@pytest.mark.parametrize("case", NESTED)
@pytest.mark.parametrize("scheme", UNBIASED)
def test_draws_within_draws_are_unbiased(scheme: str, case: str) -> None:
    """Two levels: value, gradients to features and to the logits of both levels, and the variance, by enumeration."""
    region_logits, cell_logits, regions, n = NESTED[case]
    outer_logits = torch.tensor(region_logits, dtype=torch.float64).requires_grad_()
    inner_logits = torch.tensor(cell_logits, dtype=torch.float64).requires_grad_()
    size = inner_logits.shape[1]
    features = torch.randn(*inner_logits.shape, 2, generator=generator(5), dtype=torch.float64).requires_grad_()
    outer = all_judged(scheme, outer_logits.detach().softmax(0), regions)
    insides = [all_judged(scheme, row.detach().softmax(0), n) for row in inner_logits]
    estimates, squares, probabilities = [], [], []
    for m, probability in enumerate(outer.probability):
        opened = outer.draw.cells[m].tolist()
        for picks in itertools.product(*(range(len(insides[r].probability)) for r in opened)):
            parts = [(insides[r].draw, pick) for r, pick in zip(opened, picks, strict=True)]
            heights = [d.contrasts.shape[1] for d, _ in parts if d.contrasts is not None]
            width = max(d.cells.shape[1] for d, _ in parts)

            def padded(rows: list[Tensor], shape: tuple[int, ...]) -> Tensor:
                out = torch.zeros(len(rows), *shape, dtype=rows[0].dtype)
                for i, row in enumerate(rows):
                    out[(i, *(slice(k) for k in row.shape))] = row
                return out

            inner = Draw(
                padded([d.cells[k] for d, k in parts], (width,)),
                padded([d.weights[k] for d, k in parts], (width,)),
                padded([d.contrasts[k] for d, k in parts if d.contrasts is not None], (max(heights), width)),
            )
            one = Draw(outer.draw.cells[m : m + 1], outer.draw.weights[m : m + 1], outer.draw.contrasts[m : m + 1])  # type: ignore[index]
            drawn = nest(one, inner, size, repeats=scheme == "iid")
            log_a = outer_logits.log_softmax(0)[opened, None] + inner_logits[opened].log_softmax(1)
            flat, seen = log_a.reshape(1, -1), features[opened].reshape(1, -1, 2)[:, drawn.cells[0]]
            estimates.append(expectation(flat, seen, drawn)[0])
            assert drawn.contrasts is not None
            d = drawn.contrasts[0] @ (flat[0, drawn.cells[0]].exp().unsqueeze(-1) * seen[0])
            squares.append(d.T @ d)
            probabilities.append(
                probability * math.prod(float(insides[r].probability[k]) for r, k in zip(opened, picks, strict=True))
            )
    p = torch.stack(probabilities)
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    values = torch.stack(estimates)
    mean = p @ values
    exact = torch.einsum("r,ri,rid->d", outer_logits.softmax(0), inner_logits.softmax(1), features)
    assert float((mean - exact).detach().abs().max()) < EXACT
    for k in range(2):
        variables = (outer_logits, inner_logits, features)
        ours = torch.autograd.grad(mean[k], variables, retain_graph=True)
        true = torch.autograd.grad(exact[k], variables, retain_graph=True)
        for one_gradient, other in zip(ours, true, strict=True):
            assert float((one_gradient - other).abs().max()) < EXACT
    error = (values - exact).detach()
    stated = torch.einsum("m,mde->de", p, torch.stack(squares).detach())
    assert float((stated - torch.einsum("m,md,me->de", p, error, error)).abs().max()) < EXACT


@pytest.mark.parametrize("inclusive", [False, True], ids=["keras", "pytorch port"])
def test_published_gradients_are_rejected(inclusive: bool) -> None:
    """The gradients in two public implementations of the paper fail the check that ours pass (value right in both)."""

    def published(log_a: Tensor, f: Tensor, drawn: Draw) -> Tensor:
        a = log_a.gather(1, drawn.cells).exp().unsqueeze(-1)
        n = a.shape[1]
        m = torch.arange(n).view(1, n, 1)
        with torch.no_grad():
            before = a.cumsum(1) - (0 if inclusive else a)
            left = 1 - before
            known = (a * f).cumsum(1) - (0 if inclusive else a * f)
            step = known + left * f  # each is an unbiased estimate: their mean is the value
            to_a = (step * left / a + f.cumsum(1) - (0 if inclusive else f) - m * f) / n
            to_f = (left + (n - 1 - m) * a) / n
        value = step.mean(1)
        # a surrogate with that value and exactly these gradients
        return value + (to_a * (a - a.detach()) + to_f * (f - f.detach())).sum(1)

    logits, n = logits_of("peaked")
    value, _, to_logits = bias(all_gumbel(logits.softmax(0), n), logits, published)
    assert value < EXACT
    assert to_logits > 0.01


def test_topk_is_biased() -> None:
    """The same check tells that top-k is not an unbiased scheme."""
    logits, n = logits_of("spread")
    found = Outcomes(
        torch.ones(1, dtype=torch.float64), draw(logits.log_softmax(0)[None], n, scheme="topk", generator=generator())
    )
    assert min(bias(found, logits)) > 0.01


@pytest.mark.parametrize("n", [1, 2, 3])
def test_iid_error_is_known(n: int) -> None:
    """With unit features the mean squared error of iid is (1 - |Phi|^2) / N."""
    q = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64).softmax(0)
    features = torch.nn.functional.normalize(features_for(4), dim=1)
    found = all_iid(q, n)
    estimate = expectation(q.log().expand(len(found.probability), -1), features[found.draw.cells], found.draw)
    phi = q @ features
    mse = found.probability @ (estimate - phi).square().sum(1)
    assert float(mse) == pytest.approx(float(1 - phi.square().sum()) / n, abs=EXACT)


def drawn_by(scheme: str, log_a: Tensor, n: int, seed: int = 0, order: Tensor | None = None) -> Draw:
    """A draw by any scheme; "pairs" is the one that carries the variance of systematic."""
    if scheme == "pairs":
        return draw_judged(log_a, n, generator=generator(seed), order=order)
    return draw(log_a, n, scheme=scheme, generator=generator(seed), order=order)


class TestFrequencies:
    ROWS = 40_000

    def test_gumbel_order_is_plackett_luce(self) -> None:
        """Ordered draws come as often as drawing one by one without replacement says."""
        q = torch.tensor([0.5, 0.25, 0.2, 0.05], dtype=torch.float64)
        cells = draw(q.log().expand(self.ROWS, -1), 2, scheme="gumbel", generator=generator(1)).cells
        for i, j in itertools.permutations(range(4), 2):
            p = float(q[i] * q[j] / (1 - q[i]))
            count = int(((cells[:, 0] == i) & (cells[:, 1] == j)).sum())
            assert abs(count - self.ROWS * p) < 4.5 * math.sqrt(self.ROWS * p * (1 - p))

    def test_systematic_includes_each_cell_with_its_probability(self) -> None:
        """Each cell comes with pi, those at pi = 1 always, none twice."""
        logits = torch.tensor([3.0, 0.0, 0.5, -1.0, -INF, 0.2, -0.3])
        pi = inclusion_probabilities(logits.double().softmax(0)[None], 3)[0]
        cells = draw(logits.log_softmax(0).expand(self.ROWS, -1), 3, generator=generator(2)).cells
        count = torch.zeros(self.ROWS, 7, dtype=torch.float64).scatter_add(1, cells, torch.ones(cells.shape).double())
        assert int(count.max()) == 1
        z = (count.mean(0) - pi).abs() / (pi * (1 - pi) / self.ROWS).sqrt().clamp(min=1e-12)
        assert float(z.max()) < 4.5
        assert int((pi == 1).sum()) == 1

    @pytest.mark.parametrize("scheme", [*UNBIASED, "pairs"])
    def test_every_cell_counts_once_on_average(self, scheme: str) -> None:
        """E[sum of weights of a cell] = 1 with the uniforms that the generator really gives."""
        logits = torch.tensor([3.0, 0.0, 0.5, -1.0, -INF, 0.2, -0.3, 0.1, 0.9])
        drawn = drawn_by(scheme, logits.log_softmax(0).expand(self.ROWS, -1), 4, seed=3)
        total = torch.zeros(self.ROWS, 9, dtype=torch.float64).scatter_add(1, drawn.cells, drawn.weights)
        inside = logits > -INF
        error = total.std(0) / math.sqrt(self.ROWS)
        assert bool(((total.mean(0) - 1).abs() <= 4.5 * error + 1e-12)[inside].all())
        assert not bool(total[:, ~inside].any())

    @pytest.mark.parametrize("scheme", [*UNBIASED, "pairs"])
    def test_no_index_is_favoured_among_a_million(self, scheme: str) -> None:
        """Uniform attention over 1e6 cells: the mean index is where it should be, and no cell comes twice."""
        k, n = 1_000_000, 10_000
        order = torch.randperm(k, generator=generator(5))
        cells = drawn_by(scheme, torch.full((1, k), -math.log(k)), n, seed=4, order=order).cells[0]
        assert abs(float(cells.double().mean()) - (k - 1) / 2) < 4.5 * k / math.sqrt(12 * n)
        if scheme in ("gumbel", "systematic"):
            assert len(set(cells.tolist())) == n


class TestInclusionProbabilities:
    @pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
    @pytest.mark.parametrize(
        "a",
        [
            [0.4, 0.3, 0.1, 0.1, 0.05, 0.05],
            [0.9, 0.05, 0.03, 0.01, 0.005, 0.005],
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            [0.5, 0.5, 0.0, 0.0, 1e-30, 0.0],
            [2.0, 2.0, 2.0, 1.0, 1.0, 1.0],
        ],
    )
    def test_solves_its_equation(self, a: list[float], n: int) -> None:
        """pi = min(1, c a) with sum n, found independently by bisection on c."""
        weights = torch.tensor(a, dtype=torch.float64)
        pi = inclusion_probabilities(weights[None], n)[0]
        support = int((weights > 0).sum())
        assert float(pi.sum()) == pytest.approx(min(n, support), abs=1e-12)
        if support <= n:
            assert torch.equal(pi, (weights > 0).double())
            return
        low, high = 0.0, 1e40
        for _ in range(300):
            middle = (low + high) / 2
            low, high = (middle, high) if float((middle * weights).clamp(max=1).sum()) < n else (low, middle)
        assert torch.allclose(pi, (high * weights).clamp(max=1), atol=1e-12)

    def test_a_million_cells(self) -> None:
        a = (4 * torch.randn(1, 1_000_000, generator=generator(), dtype=torch.float64)).softmax(1)
        pi = inclusion_probabilities(a, 1000)
        assert float(pi.sum()) == pytest.approx(1000, abs=1e-9)
        assert float(pi.max()) == 1


class TestBatches:
    LOGITS = torch.tensor(
        [
            [0.0, 0.3, -1.0, 2.0, 0.4, -0.2],
            [9.0, 0.3, -INF, 2.0, 0.4, -0.2],
            [-INF, 0.0, 0.0, 0.0, 0.0, 0.0],
            [-INF, 0.7, -INF, -0.1, 0.1, -INF],
        ],
        dtype=torch.float64,
    )

    def test_batched_equals_looped(self) -> None:
        """Slides with different masks and sure cells do not disturb each other."""
        q = self.LOGITS[:3].softmax(1)
        order = torch.tensor([2, 0, 3, 1, 5, 4])
        u = torch.rand(3, 3, 6, generator=generator(), dtype=torch.float64)
        calls: list[Callable[[slice], Draw]] = [
            lambda s: designs.iid(q[s], u[0, s, :4]),
            lambda s: designs.gumbel(q[s], 4, u[0, s]),
            lambda s: designs.systematic(q[s], 4, u[0, s, :1], order),
            lambda s: designs.pairs(q[s], 4, 512, u[:, s, :2], order),
        ]
        for call in calls:
            together = call(slice(None))
            for i in range(3):
                alone = call(slice(i, i + 1))
                assert torch.equal(together.cells[i], alone.cells[0])
                assert torch.allclose(together.weights[i], alone.weights[0], rtol=1e-12)

    @pytest.mark.parametrize("scheme", [*SCHEMES, "pairs"])
    def test_a_seed_decides_everything(self, scheme: str) -> None:
        log_a = self.LOGITS.log_softmax(1)
        one, two, other = (drawn_by(scheme, log_a, 4, seed) for seed in (3, 3, 4))
        assert torch.equal(one.cells, two.cells)
        assert torch.equal(one.weights, two.weights)
        if scheme != "topk":
            assert not torch.equal(one.cells, other.cells)

    @pytest.mark.parametrize("scheme", [*SCHEMES, "pairs"])
    def test_small_slides_are_taken_whole_and_padded(self, scheme: str) -> None:
        """A slide of three cells among larger ones: its cells with weight 1, then one of them with weight 0."""
        log_a = self.LOGITS.log_softmax(1)
        drawn = drawn_by(scheme, log_a, 4)
        assert drawn.cells.shape == (4, 4)
        assert drawn.weights[3].tolist() == [1, 1, 1, 0]
        assert set(drawn.cells[3, :3].tolist()) == {1, 3, 4}
        assert int(drawn.cells[3, 3]) in {1, 3, 4}
        features = features_for(6)
        value = expectation(log_a, features[drawn.cells], drawn)[3]
        assert torch.allclose(value, log_a[3].exp() @ features, atol=1e-14)
        assert float(hard_bound(log_a, drawn)[3]) == 0
        if drawn.contrasts is not None:
            assert not bool(drawn.contrasts[3].any())

    @pytest.mark.parametrize("scheme", [*SCHEMES, "pairs"])
    def test_enough_draws_are_exact(self, scheme: str) -> None:
        """With at least as many draws as cells the width is that of the largest slide, and nothing is random."""
        log_a = self.LOGITS.log_softmax(1)
        drawn = drawn_by(scheme, log_a, 50)
        features = features_for(6)
        assert drawn.cells.shape == (4, 6)
        assert torch.allclose(expectation(log_a, features[drawn.cells], drawn), log_a.exp() @ features, atol=1e-14)
        if drawn.contrasts is not None:
            assert not bool(drawn.contrasts.any())

    @pytest.mark.parametrize("scheme", [*SCHEMES, "pairs"])
    def test_masked_cells_are_never_drawn(self, scheme: str) -> None:
        mask = torch.rand(500, 64, generator=generator(), dtype=torch.float64) < 0.5
        log_a = torch.randn(500, 64, generator=generator(1)).masked_fill(mask, -INF).log_softmax(1)
        drawn = drawn_by(scheme, log_a, 24, order=hilbert_order(8, 8))
        assert not bool(mask.gather(1, drawn.cells).any())

    def test_each_pair_is_a_contrast_of_its_own(self) -> None:
        """Of 20 cells that are not sure, every contrast holds two, and every cell is in one."""
        drawn = draw_judged(torch.zeros(1, 100).log_softmax(1), 20, generator=generator())
        assert drawn.contrasts is not None
        held = drawn.contrasts[0] != 0
        assert held.sum(1).tolist() == [2] * 10
        assert held.sum(0).tolist() == [1] * 20


class TestExtremes:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    @pytest.mark.parametrize("scheme", [*SCHEMES, "pairs"])
    def test_vanishing_attention_gives_no_nan(self, scheme: str, dtype: torch.dtype) -> None:
        """Attention far below the smallest float: value and gradients are finite and right."""
        logits = torch.tensor([[0.0, -2000.0, -720.0, -4000.0, -INF, -1.0]], dtype=dtype, requires_grad=True)
        features = features_for(6).to(dtype).requires_grad_()
        log_a = logits.log_softmax(1)
        for seed in range(20):
            drawn = drawn_by(scheme, log_a, 3, seed)
            assert bool(drawn.weights.isfinite().all())
            value = expectation(log_a, features[drawn.cells], drawn)
            assert value.dtype == dtype
            gradients = torch.autograd.grad(value.sum(), (logits, features), retain_graph=True)
            assert all(bool(g.isfinite().all()) for g in gradients)
            assert bool(value.isfinite().all())
        if scheme in ("systematic", "pairs"):  # both cells that matter are sure
            exact = log_a.double().exp() @ features.double()
            assert torch.allclose(value.double(), exact, atol=4 * torch.finfo(dtype).eps)

    def test_a_proposal_beyond_float64_still_draws_every_cell(self) -> None:
        """Two cells whose proposal probability would underflow share the draw that the sure cell leaves."""
        log_a = torch.zeros(2000, 3).log_softmax(1)
        log_q = torch.tensor([[0.0, -2000.0, -2000.0]]).expand(2000, -1)
        drawn = draw(log_a, 2, generator=generator(), log_proposal=log_q)
        assert bool((drawn.cells[:, 0] == 0).all())
        assert torch.allclose(drawn.weights, torch.tensor([1.0, 2.0]).double())
        assert abs(float((drawn.cells[:, 1] == 1).double().mean()) - 0.5) < 4.5 * 0.5 / math.sqrt(2000)

    def test_the_ends_of_the_uniforms_draw_no_masked_cell(self) -> None:
        """Uniforms of exactly 0 and of the last float64 before 1, where sums round up to the end of the walk."""
        q = torch.tensor([[0.0, 0.3, 0.25, 0.0, 0.3, 0.15, 0.0]], dtype=torch.float64)
        walk = torch.arange(7)
        for u in (0.0, 1 - 2.0**-53):
            uniforms = torch.full((3, 1, 7), u, dtype=torch.float64)
            for drawn in (
                designs.iid(q, uniforms[0]),
                designs.gumbel(q, 3, uniforms[0]),
                designs.systematic(q, 3, uniforms[0, :, :1], walk),
                designs.pairs(q, 2, 2, uniforms[:, :, :1], walk),
            ):
                assert bool((q[0, drawn.cells] > 0).all())

    @pytest.mark.parametrize("peak", [30.0, 300.0])
    def test_gumbel_keeps_what_a_peak_leaves(self, peak: float) -> None:
        """The mass after a peak is not lost to cancellation in 1 - a, which would bias the other cells."""
        logits = torch.tensor([peak, 0.0, 0.0], dtype=torch.float64)
        q = logits.softmax(0)
        weights = designs.gumbel_weights(q[None], torch.tensor([[0, 1]]))[0]
        assert float(weights[1]) == pytest.approx(1.0, rel=1e-12)  # (2 q_1) / q_1 / 2

    def test_stale_draws_stay_right(self) -> None:
        """Draws from an older attention map keep their weights; cells that it has since dropped add nothing."""
        old = torch.zeros(1, 5, dtype=torch.float64).log_softmax(1)
        new = torch.tensor([[0.0, -INF, 1.0, -INF, 2.0]], dtype=torch.float64, requires_grad=True)
        drawn = draw(old, 3, scheme="gumbel", generator=generator())
        value = expectation(new.log_softmax(1), features_for(5)[drawn.cells], drawn)
        (gradient,) = torch.autograd.grad(value.sum(), new)
        assert bool(value.isfinite().all())
        assert bool(gradient.isfinite().all())


class TestBadInput:
    GOOD = torch.zeros(2, 4).log_softmax(1)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ((1, 2, math.nan), "log_attention is NaN at row 1, cell 2"),
            ((0, 3, INF), r"log_attention is \+inf at row 0, cell 3"),
            ((1, slice(None), -INF), "row 1 of log_attention has no cell"),
        ],
    )
    def test_attention(self, change: tuple[int, int | slice, float], message: str) -> None:
        row, cell, value = change
        log_a = self.GOOD.clone()
        log_a[row, cell] = value
        with pytest.raises(ValueError, match=message):
            draw(log_a, 2, generator=generator())
        with pytest.raises(ValueError, match=message):
            draw_judged(log_a, 2, generator=generator())

    @pytest.mark.parametrize("n", [0, -3])
    def test_nothing_to_draw(self, n: int) -> None:
        with pytest.raises(ValueError, match="at least one cell"):
            draw(self.GOOD, n, generator=generator())

    def test_shape_scheme_and_order(self) -> None:
        with pytest.raises(ValueError, match="slides, cells"):
            draw(self.GOOD[0], 2, generator=generator())
        with pytest.raises(ValueError, match="unknown scheme 'best': one of systematic"):
            draw(self.GOOD, 2, scheme="best", generator=generator())
        for order in ([0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 4]):
            with pytest.raises(ValueError, match="permutation of 4 cells"):
                draw(self.GOOD, 2, generator=generator(), order=torch.tensor(order))

    def test_proposal(self) -> None:
        q = self.GOOD.clone()
        q[0, 1] = -INF
        with pytest.raises(ValueError, match="-inf where log_attention is not"):
            draw(self.GOOD, 2, generator=generator(), log_proposal=q)
        with pytest.raises(ValueError, match="log_proposal must be"):
            draw(self.GOOD, 2, generator=generator(), log_proposal=q[:1])
        with pytest.raises(ValueError, match="log_proposal is NaN"):
            draw(self.GOOD, 2, generator=generator(), log_proposal=q * math.nan)
        with pytest.raises(ValueError, match="topk"):
            draw(self.GOOD, 2, scheme="topk", generator=generator(), log_proposal=self.GOOD)

    def test_proposal_outside_the_tissue_is_ignored(self) -> None:
        """A proposal may be positive anywhere; cells without tissue are still never drawn."""
        log_a = self.GOOD.clone()
        log_a[:, 0] = -INF
        drawn = draw(log_a, 2, generator=generator(), log_proposal=torch.tensor([[9.0, 0.0, 1.0, 2.0]]).expand(2, -1))
        assert not bool((drawn.cells == 0).any())

    def test_what_cannot_tell_a_variance(self) -> None:
        with pytest.raises(ValueError, match="topk cannot tell its bias"):
            draw_judged(self.GOOD, 2, scheme="topk", generator=generator())
        with pytest.raises(ValueError, match="at least 2 cells"):
            draw_judged(self.GOOD, 1, generator=generator())
        with pytest.raises(ValueError, match="at most 2048 draws, got 3000: use systematic"):
            draw_judged(torch.zeros(1, 5000).log_softmax(1), 3000, scheme="gumbel", generator=generator())

    def test_features_of_other_cells(self) -> None:
        drawn = draw(self.GOOD, 2, generator=generator())
        with pytest.raises(ValueError, match="features of the drawn cells must be"):
            expectation(self.GOOD, torch.zeros(2, 4, 3), drawn)


class TestAttention:
    def test_entropy_of_a_million_cells(self) -> None:
        """Uniform attention over K cells has entropy log K, also in float32."""
        log_a = torch.zeros(1, 1_000_000).log_softmax(1)
        assert float(entropy(log_a)) == pytest.approx(math.log(1e6), rel=1e-5)

    def test_entropy_and_gradient_with_masked_cells(self) -> None:
        """Masked cells change nothing; the gradient to the logits is -a (log a + H)."""
        logits = torch.tensor([[0.3, -INF, -1.0, 0.8]], dtype=torch.float64, requires_grad=True)
        value = entropy(logits.log_softmax(1))
        inner = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64).softmax(0)
        expected = -(inner * inner.log()).sum()
        assert float(value.detach()) == pytest.approx(float(expected), abs=1e-14)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert torch.allclose(gradient[0, [0, 2, 3]], -inner * (inner.log() + expected), atol=1e-14)
        assert float(gradient[0, 1]) == 0

    def test_smoothing_mixes_in_a_uniform_share(self) -> None:
        logits = torch.tensor([[0.3, -INF, -900.0, 0.8]], dtype=torch.float64, requires_grad=True)
        log_a = logits.log_softmax(1)
        mixed = smooth(log_a, 0.1)
        assert torch.allclose(mixed.exp()[0, [0, 2, 3]], 0.9 * log_a.exp()[0, [0, 2, 3]] + 0.1 / 3, atol=1e-14)
        assert float(mixed[0, 1].detach()) == -INF
        assert smooth(log_a, 0.0) is log_a
        (gradient,) = torch.autograd.grad(entropy(mixed).sum(), logits)
        assert bool(gradient.isfinite().all())
        with pytest.raises(ValueError, match=r"in \[0, 1\)"):
            smooth(log_a, 1.0)

    @pytest.mark.parametrize("scheme", [*SCHEMES, "pairs"])
    def test_hard_bound_holds(self, scheme: str) -> None:
        """It is the attention of the cells that were not drawn, and bounds the error of what was read."""
        log_a = (2 * torch.randn(50, 30, generator=generator())).double().log_softmax(1)
        features = torch.nn.functional.normalize(features_for(30), dim=1)
        drawn = drawn_by(scheme, log_a, 8)
        bound = hard_bound(log_a, drawn)
        for row in range(50):
            read = sorted(set(drawn.cells[row].tolist()))
            a = log_a[row].exp()
            assert float(bound[row]) == pytest.approx(float(1 - a[read].sum()), abs=1e-14)
            assert float((a @ features - a[read] @ features[read]).norm()) <= float(bound[row]) + 1e-14


class TestHilbert:
    @pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 7), (9, 1), (3, 5), (12, 7), (16, 16), (6, 100), (40, 33)])
    def test_is_a_permutation(self, rows: int, cols: int) -> None:
        assert torch.equal(hilbert_order(rows, cols).sort().values, torch.arange(rows * cols))

    @pytest.mark.parametrize(("rows", "cols"), [(2, 2), (8, 8), (32, 32), (4, 20), (24, 8), (1, 7)])
    def test_neighbours_touch(self, rows: int, cols: int) -> None:
        """Consecutive cells share a side on any grid of whole squares of side 2^k."""
        order = hilbert_order(rows, cols)
        steps = (order // cols).diff().abs() + (order % cols).diff().abs()
        assert bool((steps == 1).all())

    def test_empty_grid(self) -> None:
        with pytest.raises(ValueError, match="at least one row"):
            hilbert_order(0, 4)

    def test_the_walk_lowers_the_error(self) -> None:
        """On smooth features the walk makes systematic and its pairs better than iid, and a random order loses that."""
        side, n, rows = 32, 32, 400
        y, x = torch.meshgrid(*(torch.linspace(0, 2, side, dtype=torch.float64),) * 2, indexing="ij")
        features = torch.stack([(2 * x).sin(), (3 * y).cos(), x * y], -1).view(-1, 3)
        log_a = (0.5 * (x + y).sin()).flatten().log_softmax(0).expand(rows, -1)
        shuffled = torch.randperm(side * side, generator=generator(9))

        def mse(scheme: str, order: Tensor) -> float:
            drawn = drawn_by(scheme, log_a, n, order=order)
            error = expectation(log_a, features[drawn.cells], drawn) - log_a[0].exp() @ features
            return float(error.square().sum(1).mean())

        walk = hilbert_order(side, side)
        baseline = mse("iid", walk)
        assert mse("systematic", walk) < 0.2 * baseline
        assert mse("pairs", walk) < 0.2 * baseline
        assert mse("systematic", shuffled) > 0.4 * baseline
