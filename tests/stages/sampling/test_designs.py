"""Every design is unbiased by exact enumeration of a tiny space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from enumeration import (
    CASES,
    EXACT,
    INF,
    UNBIASED,
    all_gumbel,
    all_iid,
    all_judged,
    bias,
    covariances,
    features_for,
    generator,
    logits_of,
    outcomes_of,
)
from torch import Tensor

from stages.sampling import designs
from stages.sampling.designs import Draw, inclusion_probabilities, nest
from stages.sampling.draw import draw_judged
from stages.sampling.estimate import expectation


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


class TestUniforms:
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
