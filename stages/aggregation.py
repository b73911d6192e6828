"""From a draw's estimate of a slide to its prediction, with intervals.

The head is linear in the slide embedding, so the logits are unbiased for those of the model that reads everything.
Averaging *logits* keeps that; averaging probabilities would add the head's curvature. The interval is about reading: it
is for the probability that the same model would give after reading every patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student_t
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prediction:
    """Class probabilities of one slide and what sampling leaves open about them.

    Attributes:
        probabilities: (C,), softmax of the logits.
        low, high: (C,), ends of the interval for the exhaustive model's probability at the stated confidence.
        logits: (C,).
    """

    probabilities: Tensor
    low: Tensor
    high: Tensor
    logits: Tensor

    @property
    def reach(self) -> float:
        """How far an interval reaches at most from its probability, over the classes."""
        return float(torch.maximum(self.probabilities - self.low, self.high - self.probabilities).max())


def predict(logits: Tensor, patch_logits: Tensor, contrasts: Tensor, *, confidence: float = 0.95) -> Prediction:
    """Prediction from a slide's estimated logits and what of them was left to chance.

    Class ``c`` is judged by its log-odds ``l_c = z_c - log sum_{j != c} exp z_j``, a monotone function of its
    probability, linearised at the estimate: patch ``m`` adds ``y_m`` to it per unit of attention. With two classes this
    is exact, so the interval is free of the bias that a nonlinear head adds (Jensen). The interval is
    ``l_c +- t_df sqrt(V)`` with the larger of two estimates of the variance:

    - by design, unbiased: ``sum_h d_h^2``, ``d_h = sum_m k_hm y_m``;
    - as if patches were exchangeable: ``s^2 sum_hm k_hm^2``, with ``s^2`` the variance of the drawn ``y``. A few pairs
      often look alike by luck, and the first then says next to nothing is open; the second remembers how different the
      patches of this slide can be. Where neighbours are alike it is too large, and the interval wider than stated.

    ``df = 3 (sum d_h^2)^2 / sum d_h^4 - 2`` (Satterthwaite, 1946, for components of one degree of freedom each).

    Args:
        logits: (C,), of the slide.
        patch_logits: (M, C), each drawn patch's logits without the head's constant.
        contrasts: (H, M), ``k_hm``: `stages.sampling.contrasts` times the patches' attention; zero where nothing was
            left to chance, as on a slide that was read whole.
        confidence: of the interval.

    Raises:
        ValueError: fewer than two classes, or values that are not finite.
    """
    z, y, k = (values.detach().double().cpu() for values in (logits, patch_logits, contrasts))
    if z.shape[0] < 2:
        raise ValueError(f"a prediction needs at least 2 classes, got {z.shape[0]}")
    if not all(torch.isfinite(values).all() for values in (z, y, k)):
        raise ValueError("logits are not finite: the checkpoint or the features are damaged")
    y = y @ _log_odds_slopes(z).T  # (M, C)
    square = (k @ y).square()  # (H, C)
    by_design = square.sum(0)
    fourth = square.square().sum(0)
    freedom = torch.where(fourth > 0, 3 * by_design.square() / fourth.clamp(min=1e-300) - 2, 1.0)
    freedom = freedom.clamp(1, max(1, k.shape[0]))
    variance = torch.maximum(by_design, k.square().sum() * y.var(0, correction=int(len(y) > 1)))
    half = torch.from_numpy(np.asarray(student_t.ppf(0.5 + confidence / 2, freedom.numpy()))) * variance.sqrt()
    centre = _log_odds(z)
    return Prediction(torch.softmax(z, 0), torch.sigmoid(centre - half), torch.sigmoid(centre + half), z)


def _log_odds(logits: Tensor) -> Tensor:
    """``log p_c / (1 - p_c)`` for every class: (C,) -> (C,)."""
    return logits - _others(logits).logsumexp(-1)


def _log_odds_slopes(logits: Tensor) -> Tensor:
    """``d l_c / d z_j``, (C, C): 1 on the diagonal, elsewhere minus the share of ``j`` among the classes that are not
    ``c``."""
    return torch.eye(len(logits), dtype=logits.dtype) - torch.softmax(_others(logits), -1)


def _others(logits: Tensor) -> Tensor:
    """(C, C): the logits, with -inf on the diagonal."""
    own = torch.eye(len(logits), dtype=torch.bool)
    return logits.expand(len(logits), -1).masked_fill(own, -torch.inf)
