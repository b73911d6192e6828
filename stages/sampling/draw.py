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

from stages.sampling import designs
from stages.sampling.designs import Draw as Draw
from stages.sampling.designs import inclusion_probabilities as inclusion_probabilities
from stages.sampling.designs import nest as nest
from stages.sampling.walk import hilbert_order as hilbert_order

SCHEMES = ("systematic", "gumbel", "iid", "topk")
MOST_CONTRASTS = 512
"""Pairs of a systematic draw that are contrasts of their own: enough to tell a variance, few enough to hold."""
MOST_JUDGED = 2048
"""Draws of ``iid`` or ``gumbel`` whose variance is told: it takes memory for their square."""
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
        drawn = designs.systematic(q, n, _uniform(generator, len(q), 1), order)
    elif scheme == "gumbel":
        drawn = designs.gumbel(q, n, _uniform(generator, *q.shape))
    elif scheme == "iid":
        drawn = designs.iid(q, _uniform(generator, len(q), n))
    else:
        drawn = designs.topk(q, n)
    return _where(support <= n, _whole(q, n), drawn)


@torch.no_grad()
def draw_judged(
    log_attention: Tensor,
    n: int,
    *,
    scheme: str = "systematic",
    generator: torch.Generator,
    log_proposal: Tensor | None = None,
    order: Tensor | None = None,
) -> Draw:
    """Draw ``n`` cells of every slide such that they also tell how sure they are; arguments as in `draw`.

    The draw carries contrasts (`Draw.contrasts`), whose squares sum to an unbiased variance:

    - ``systematic``: a single random start has none, so this draws two cells from every two steps of the walk instead
      (`designs.pairs`): a contrast for each pair.
    - ``gumbel`` and ``iid``: every draw is an estimate of its own, uncorrelated with the others: n - 1 contrasts.

    A slide of at most ``n`` cells is taken whole, and its contrasts are 0.

    Raises:
        ValueError: as `draw`; also ``topk``, n below 2, and more than `MOST_JUDGED` draws of ``gumbel`` or ``iid``.
    """
    q, order = _checked(log_attention, n, scheme, generator, log_proposal, order)
    if scheme == "topk":
        raise ValueError("topk cannot tell its bias, and so no variance: use systematic, gumbel or iid")
    support = (q > 0).sum(1, keepdim=True)
    if bool((support <= n).all()):
        whole = _whole(q, int(support.max()))
        return Draw(whole.cells, whole.weights, whole.weights.new_zeros(len(q), 1, whole.cells.shape[1]))
    if n < 2:
        raise ValueError(f"a variance needs at least 2 cells a slide: raise n = {n}")
    if scheme != "systematic" and n > MOST_JUDGED:
        raise ValueError(f"the variance of {scheme} is told for at most {MOST_JUDGED} draws, got {n}: use systematic")
    if scheme == "systematic":
        drawn = designs.pairs(q, n, MOST_CONTRASTS, _uniform(generator, 3, len(q), n // 2), order)
    elif scheme == "gumbel":
        drawn = designs.judged_gumbel(q, n, _uniform(generator, *q.shape))
    else:
        drawn = designs.judged_iid(q, _uniform(generator, len(q), n))
    return _where(support <= n, _whole(q, n), drawn)


def expectation(log_attention: Tensor, features: Tensor, draw: Draw, *, control: Tensor | None = None) -> Tensor:
    """Estimate ``sum_i a_i f_i`` by ``sum_m w_m a_{i_m} f_{i_m}``: (B, D), differentiable in all arguments.

    With a control variate ``h`` it is ``sum_i a_i h_i + sum_m w_m a_{i_m} (f_{i_m} - h_{i_m})``: unbiased whatever h
    is, in value and in the gradients to attention and features, and the better h foretells f the less is left to
    chance. (Its gradient to h is noise around zero; fit h by a loss of its own.)

    Args:
        log_attention: (B, K), log-softmax. It may have changed since the draw: the weights are still right.
        features: (B, N, D), of the drawn cells.
        control: (B, K, D), known for every cell without reading it; finite also off the tissue.
    """
    if features.shape[:2] != draw.cells.shape:
        raise ValueError(f"features of the drawn cells must be {(*draw.cells.shape, 'D')}, got {tuple(features.shape)}")
    # in float64 a weight of 1e200 times an attention of 1e-200 is still 1
    shares = draw.weights * log_attention.gather(1, draw.cells).double().exp()
    values = features.double()
    known: Tensor | float = 0.0
    if control is not None:
        known = torch.einsum("bk,bkd->bd", log_attention.double().exp(), control.double())
        values = values - control.double().gather(1, draw.cells.unsqueeze(-1).expand_as(features))
    return (known + torch.einsum("bn,bnd->bd", shares, values)).to(features.dtype)


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


def _where(whole: Tensor, this: Draw, other: Draw) -> Draw:
    """Rows of ``this``, where nothing is left to chance, where ``whole`` (B, 1) holds, of ``other`` elsewhere."""
    weights = torch.where(whole, this.weights, other.weights)
    cells = torch.where(whole, this.cells, other.cells)
    if other.contrasts is None:
        return Draw(cells, weights)
    return Draw(cells, weights, torch.where(whole.unsqueeze(-1), 0.0, other.contrasts))
