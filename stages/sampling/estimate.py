"""What a draw estimates, how far it can be off, and what is known of the attention that it is drawn from.

Every scheme has the same estimator. With attention ``a`` over the cells, patch features ``f`` and a draw
``i_1 .. i_N`` with *detached* weights ``w_m`` such that ``E[sum_m w_m 1{i_m = i}] = 1`` for every cell,

    ``Phi = sum_i a_i f_i``    is estimated by    ``sum_m w_m a_{i_m} f_{i_m}``,

and plain autograd gives unbiased gradients to the features and to the attention logits (Katharopoulos & Fleuret,
"Processing Megapixel Images with Deep Attention-Sampling Models", ICML 2019). Everything is batched: B slides of K
cells, of which those that are no tissue have a log attention of -inf.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stages.sampling.designs import Draw


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
