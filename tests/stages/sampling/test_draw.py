"""Draws with the uniforms that the generator gives: right where enumeration cannot reach, and what is refused."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from enumeration import INF, UNBIASED, Outcomes, bias, drawn_by, features_for, generator, logits_of

from stages.sampling.designs import inclusion_probabilities
from stages.sampling.draw import draw, draw_judged
from stages.sampling.estimate import expectation, hard_bound
from stages.sampling.schemes import SCHEMES
from stages.sampling.walk import hilbert_order


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


def test_topk_is_biased() -> None:
    """The same check tells that top-k is not an unbiased scheme."""
    logits, n = logits_of("spread")
    found = Outcomes(
        torch.ones(1, dtype=torch.float64), draw(logits.log_softmax(0)[None], n, scheme="topk", generator=generator())
    )
    assert min(bias(found, logits)) > 0.01
