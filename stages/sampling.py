"""Attention map -> draw (cells and weights) -> unbiased estimate of what reading every cell would give.

Every scheme has the same estimator. With attention ``a`` over the cells, patch features ``f`` and a draw
``i_1 .. i_N`` with *detached* weights ``w_m`` such that ``E[sum_m w_m 1{i_m = i}] = 1`` for every cell,

    ``Phi = sum_i a_i f_i``    is estimated by    ``sum_m w_m a_{i_m} f_{i_m}``,

and plain autograd gives unbiased gradients to the features and to the attention logits (Katharopoulos & Fleuret,
"Processing Megapixel Images with Deep Attention-Sampling Models", ICML 2019, whose sampling is `iid` and `gumbel`).
Schemes differ only in how they draw and in ``w``. Everything is batched: B slides of K cells, of which those that are
no tissue have a log attention of -inf and are never drawn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stages import schemes
from stages.hilbert import hilbert_order as hilbert_order
from stages.schemes import Draw as Draw
from stages.schemes import helmert
from stages.schemes import inclusion_probabilities as inclusion_probabilities

SCHEMES = ("systematic", "gumbel", "iid", "topk")
LOG_FLOOR = -600.0
"""Smallest log-probability to draw with. Any positive proposal is unbiased, and this one keeps 1/q within float64."""


@torch.no_grad()
def draw(
    log_attention: Tensor,
    n: int,
    *,
    scheme: str = "systematic",
    generator: torch.Generator,
    log_proposal: Tensor | None = None,
    order: Tensor | None = None,
) -> Draw:
    """Draw ``n`` cells of every slide; a slide of at most ``n`` cells is taken whole, with weights 1.

    Schemes, all unbiased but the last:

    - ``systematic``: without replacement with probability ``pi = min(1, c q)``, ``sum pi = n``: cells at ``pi = 1`` for
      sure, the others by equal steps along ``order`` from one random start. ``w = 1 / pi``.
    - ``gumbel``: one by one without replacement. ``w_m = (r_m / q_m + n - 1 - m) / n``, ``r_m = 1 - sum_{j<m} q_j``.
    - ``iid``: with replacement. ``w = 1 / (n q)``.
    - ``topk``: the n largest, ``w = 1 / sum of their attention``. *Biased*: a baseline only.

    Args:
        log_attention: (B, K), log-softmax over each slide's cells, of any float dtype; no gradient is needed.
        n: cells to draw, at least 1.
        generator: on the device of ``log_attention``. Uniforms are float64: at float32 a million cells would tie.
        log_proposal: (B, K), log q up to a constant; a itself by default. Whatever is positive where a is keeps the
            estimate unbiased: a stale attention map, or one that favours cheap reads.
        order: (K,), the walk of `systematic`; by index by default. Neighbours in it should look alike: `hilbert_order`.

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
    if scheme == "systematic":
        drawn = schemes.systematic(q, n, _uniform(generator, len(q), 1), order)
    elif scheme == "gumbel":
        drawn = schemes.gumbel(q, n, _uniform(generator, *q.shape))
    elif scheme == "iid":
        drawn = schemes.iid(q, _uniform(generator, len(q), n))
    else:
        drawn = schemes.topk(q, n)
    return _where(support <= n, _whole(q, n), drawn)


@torch.no_grad()
def replicates(
    log_attention: Tensor,
    n: int,
    r: int,
    *,
    scheme: str = "systematic",
    generator: torch.Generator,
    log_proposal: Tensor | None = None,
    order: Tensor | None = None,
) -> Draw:
    """Draw ``n`` cells of every slide such that they also tell how sure they are; arguments as in `draw`.

    The draw carries R sets of weights for `replicate_expectations`:

    - ``systematic``: a single random start has no unbiased variance, so this draws two cells from every two steps of
      the walk instead (`schemes.pairs`). R = min(r, 1 + pairs): a larger r costs no reads and gives the variance more
      degrees of freedom, R - 1. In a batch, R follows the slide of most pairs.
    - ``gumbel`` and ``iid``: R = r independent draws that share the budget.

    A slide of at most ``n`` cells is taken whole, and its replicates are all equal.

    Raises:
        ValueError: as `draw`; also r < 2, ``topk``, and n too small to replicate (below 2; ``gumbel`` and ``iid``: r).
    """
    q, order = _checked(log_attention, n, scheme, generator, log_proposal, order)
    if r < 2:
        raise ValueError(f"a variance needs at least 2 replicates, got r = {r}")
    if scheme == "topk":
        raise ValueError("replicates of topk cannot tell its bias: use systematic, gumbel or iid")
    support = (q > 0).sum(1, keepdim=True)
    if bool((support <= n).all()):
        return _replicated(_whole(q, int(support.max())), 2)
    fewest = 2 if scheme == "systematic" else r
    if n < fewest:
        raise ValueError(f"{scheme} with r = {r} replicates needs at least {fewest} cells a slide: raise n = {n}")
    if scheme == "systematic":
        drawn = schemes.pairs(q, n, r, _uniform(generator, 3, len(q), n // 2), order)
    else:
        sizes = [n // r + (g < n % r) for g in range(r)]
        if scheme == "gumbel":
            parts = [schemes.gumbel(q, size, _uniform(generator, *q.shape)) for size in sizes]
        else:
            parts = [schemes.iid(q, _uniform(generator, len(q), size)) for size in sizes]
        drawn = schemes.independent(parts)
    assert drawn.replicate_weights is not None
    return _where(support <= n, _replicated(_whole(q, n), drawn.replicate_weights.shape[1]), drawn)


def expectation(log_attention: Tensor, features: Tensor, draw: Draw) -> Tensor:
    """Estimate ``sum_i a_i f_i`` by ``sum_m w_m a_{i_m} f_{i_m}``: (B, D), differentiable in both arguments.

    Args:
        log_attention: (B, K), log-softmax. It may have changed since the draw: the weights are still right.
        features: (B, N, D), of the drawn cells.
    """
    terms = _terms(log_attention, features, draw)
    return torch.einsum("bn,bnd->bd", draw.weights, terms).to(features.dtype)


def replicate_expectations(log_attention: Tensor, features: Tensor, draw: Draw) -> Tensor:
    """Replicate estimates of ``sum_i a_i f_i``, (B, R, D); arguments as in `expectation`.

    Each is unbiased, their mean over R is `expectation`, and their sample covariance over R is an unbiased estimate of
    its covariance.

    Raises:
        ValueError: the draw is not from `replicates`.
    """
    if draw.replicate_weights is None:
        raise ValueError("this draw has no replicates: make it with replicates() instead of draw()")
    terms = _terms(log_attention, features, draw)
    return torch.einsum("brn,bnd->brd", draw.replicate_weights, terms).to(features.dtype)


def contrasts(draw: Draw) -> Tensor:
    """What of a draw was left to chance, as orthogonal contrasts ``k`` between its terms: (B, R - 1, N).

    With ``d_h = sum_m k_hm a_m f_m``, ``sum_h d_h^2`` is the sample variance of the replicates over R, an unbiased
    estimate of the estimate's variance. Where R - 1 is the number of pairs, every contrast is one pair of cells.

    Raises:
        ValueError: the draw is not from `replicates`.
    """
    if draw.replicate_weights is None:
        raise ValueError("this draw has no replicates: make it with replicates() instead of draw()")
    r = draw.replicate_weights.shape[1]
    basis = helmert(r).to(draw.replicate_weights) / math.sqrt(r * (r - 1))
    return torch.einsum("brn,rh->bhn", draw.replicate_weights, basis)


def hard_bound(log_attention: Tensor, draw: Draw) -> Tensor:
    """Attention that was not read, ``1 - sum of a over distinct drawn cells``: (B,) float64.

    With unit features it bounds ``|| Phi - sum over distinct drawn cells of a_i f_i ||``, whatever was drawn.
    """
    read = torch.zeros_like(log_attention, dtype=torch.bool).scatter(1, draw.cells, True)
    # the sum of what is left, not 1 - sum: at full attention on a few cells nothing would be left of the difference
    return log_attention.double().exp().masked_fill(read, 0.0).sum(1)


def entropy(log_attention: Tensor) -> Tensor:
    """``- sum_i a_i log a_i`` in nats from a log-softmax (B, K): (B,); cells at -inf add nothing, also no gradient."""
    inside = log_attention > -torch.inf
    log_a = log_attention.masked_fill(~inside, 0.0)
    return -(log_a.exp() * log_a).masked_fill(~inside, 0.0).sum(1)


def smooth(log_attention: Tensor, share: float) -> Tensor:
    """Log of ``(1 - share) a + share * uniform`` over the cells that are not at -inf: (B, K) -> (B, K).

    Raises:
        ValueError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"the uniform share of attention must be in [0, 1), got {share}")
    if share == 0:
        return log_attention
    outside = log_attention == -torch.inf
    log_uniform = math.log(share) - (~outside).sum(1, keepdim=True).to(log_attention.dtype).log()
    mixed = torch.logaddexp(log_attention.masked_fill(outside, 0.0) + math.log1p(-share), log_uniform)
    return mixed.masked_fill(outside, -torch.inf)


def _terms(log_attention: Tensor, features: Tensor, draw: Draw) -> Tensor:
    """``a_{i_m} f_m`` (B, N, D) in float64, where a weight of 1e200 times an attention of 1e-200 is still 1."""
    if features.shape[:2] != draw.cells.shape:
        raise ValueError(f"features of the drawn cells must be {(*draw.cells.shape, 'D')}, got {tuple(features.shape)}")
    return log_attention.gather(1, draw.cells).double().exp().unsqueeze(-1) * features.double()


def _checked(
    log_attention: Tensor,
    n: int,
    scheme: str,
    generator: torch.Generator,
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
    if generator.device.type != log_attention.device.type:
        raise ValueError(f"attention is on {log_attention.device} but the generator on {generator.device}: match them")
    outside = log_attention == -torch.inf
    _check_logits("log_attention", log_attention)
    if bool(outside.all(1).any()):
        row = int(outside.all(1).nonzero()[0])
        raise ValueError(f"row {row} of log_attention has no cell to draw: leave out slides without tissue")
    proposal = log_attention
    if log_proposal is not None:
        if scheme == "topk":
            raise ValueError("topk takes the largest attention: leave out log_proposal, or choose another scheme")
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


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)


def _whole(q: Tensor, width: int) -> Draw:
    """Every cell of the slides that have at most ``width``, with weights 1, the largest first."""
    cells = q.topk(width).indices
    inside = torch.arange(width, device=q.device) < (q > 0).sum(1, keepdim=True)
    return Draw(torch.where(inside, cells, cells[:, :1]), inside.double())


def _replicated(draw: Draw, r: int) -> Draw:
    """The same weights in every one of r replicates."""
    return Draw(draw.cells, draw.weights, draw.weights.unsqueeze(1).repeat(1, r, 1))


def _where(whole: Tensor, this: Draw, other: Draw) -> Draw:
    """Rows of ``this`` where ``whole`` (B, 1) holds, of ``other`` elsewhere."""
    weights = torch.where(whole, this.weights, other.weights)
    cells = torch.where(whole, this.cells, other.cells)
    if this.replicate_weights is None or other.replicate_weights is None:
        return Draw(cells, weights)
    return Draw(cells, weights, torch.where(whole.unsqueeze(-1), this.replicate_weights, other.replicate_weights))
