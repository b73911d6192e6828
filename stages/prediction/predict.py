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

SLIGHT = 1e-3
"""Share of the variance of all drawn patches below which a smaller variance is not believed: few draws look alike."""


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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What draws of B slides tell about the log-odds of C classes; all float64.

    Attributes:
        log_odds: (B, C), ``l_c = z_c - log sum_{j != c} exp z_j``, of the estimated logits.
        unit: (B, 1), sum of the squared contrasts: the estimate's variance if patches differed by 1 at random.
        freedom: (B, 1), patches left to chance, less one (0 at least).
        by_design: (B, C), the design's unbiased variance, in these units.
        among_random: (B, C), variance among the patches that were left to chance.
        among_all: (B, C), variance among all that were drawn, those drawn for sure included.
    """

    log_odds: Tensor
    unit: Tensor
    freedom: Tensor
    by_design: Tensor
    among_random: Tensor
    among_all: Tensor


@dataclass(frozen=True, slots=True)
class Calibration:
    """How draws of a cohort's slides spread: what one draw of few patches cannot tell (`pipeline.train.calibrate`).

    A draw's own variance is shrunk, in logarithms, towards what slides whose patches differ as much as this one's
    usually have (a generalised variance function: K. M. Wolter, *Introduction to Variance Estimation*, ch. 7):

        ``log V = w (eta log by_design + (1 - eta) log among_random) + (1 - w) (alpha + beta log among_all) + log unit``

    with ``w = freedom / (freedom + worth)``; the half-width is ``factor(N) t_{freedom + worth} sqrt(V)``. The default
    knows no cohort and takes the patches of a slide as exchangeable.

    Attributes:
        alpha, beta: level and slope of the cohort's variance.
        eta: weight of the design's variance, which knows that neighbours are alike; the other has more freedom.
        worth: draws that the cohort's word is worth.
        budgets, factors: what the half-width is multiplied by at so many draws (interpolated in their logarithm).
    """

    alpha: float = 0.0
    beta: float = 1.0
    eta: float = 0.5
    worth: float = 4.0
    budgets: tuple[int, ...] = (1,)
    factors: tuple[float, ...] = (1.0,)

    def variance(self, evidence: Evidence) -> Tensor:
        """``V`` (B, C)."""
        floor = SLIGHT * evidence.among_all + torch.finfo(torch.float64).tiny
        own = self.eta * (evidence.by_design + floor).log() + (1 - self.eta) * (evidence.among_random + floor).log()
        cohort = self.alpha + self.beta * (evidence.among_all + floor).log()
        w = evidence.freedom / (evidence.freedom + self.worth)
        return (w * own + (1 - w) * cohort).exp() * evidence.unit

    def half_width(self, evidence: Evidence, drawn: int, *, confidence: float = 0.95) -> Tensor:
        """Half the interval of the log-odds, (B, C), from ``drawn`` cells."""
        factor = float(np.interp(np.log(drawn), np.log(self.budgets), self.factors))
        quantile = student_t.ppf(0.5 + confidence / 2, (evidence.freedom + self.worth).numpy())
        return factor * torch.from_numpy(np.asarray(quantile)) * self.variance(evidence).sqrt()


def weigh(logits: Tensor, patch_logits: Tensor, contrasts: Tensor) -> Evidence:
    """What draws tell about each class's log-odds, linearised at the estimate.

    Patch ``m`` adds ``y_m`` to the log-odds per unit of attention. With two classes this is exact, so the interval is
    free of the bias that a nonlinear head adds (Jensen).

    Args:
        logits: (B, C), of the slides.
        patch_logits: (B, M, C), each drawn patch's logits without the head's constant.
        contrasts: (B, H, M), ``k_hm``: those of the draw times the patches' attention.
    """
    z, k = logits.detach().double().cpu(), contrasts.detach().double().cpu()
    others = z.unsqueeze(-2).expand(*z.shape, -1).masked_fill(torch.eye(z.shape[-1], dtype=torch.bool), -torch.inf)
    # d l_c / d z_j: 1 for j = c, minus the share of j among the others elsewhere
    slopes = torch.eye(z.shape[-1], dtype=torch.float64) - torch.softmax(others, -1)
    y = patch_logits.detach().double().cpu() @ slopes.transpose(-1, -2)  # (B, M, C)
    unit = k.square().sum((1, 2)).unsqueeze(-1)
    chance = (k != 0).any(1)  # (B, M)
    count = chance.sum(1, keepdim=True)
    mean = (y * chance.unsqueeze(-1)).sum(1, keepdim=True) / count.clamp(min=1).unsqueeze(-1)
    spread = ((y - mean).square() * chance.unsqueeze(-1)).sum(1)
    return Evidence(
        log_odds=z - others.logsumexp(-1),
        unit=unit,
        freedom=(count - 1).clamp(min=0).double(),
        by_design=(k @ y).square().sum(1) / unit.clamp(min=torch.finfo(torch.float64).tiny),
        among_random=spread / (count - 1).clamp(min=1),
        among_all=y.var(1, correction=int(y.shape[1] > 1)),
    )


def predict(
    logits: Tensor,
    patch_logits: Tensor,
    contrasts: Tensor,
    *,
    calibration: Calibration | None = None,
    confidence: float = 0.95,
) -> Prediction:
    """Prediction from a slide's estimated logits and what of them was left to chance.

    The interval of class ``c`` is ``sigmoid(l_c +- half-width)``, with ``l_c`` its log-odds: a monotone function of its
    probability, so that the interval's ends are those of the probability too.

    Args:
        logits: (C,), of the slide.
        patch_logits: (M, C), each drawn patch's logits without the head's constant.
        contrasts: (H, M), ``k_hm``: the draw's contrasts times the patches' attention; zero where nothing was left to
            chance, as on a slide that was read whole.
        calibration: the cohort's; default: what a slide tells by itself.
        confidence: of the interval.

    Raises:
        ValueError: fewer than two classes, or values that are not finite.
    """
    if logits.shape[0] < 2:
        raise ValueError(f"a prediction needs at least 2 classes, got {logits.shape[0]}")
    if not all(bool(torch.isfinite(values).all()) for values in (logits, patch_logits, contrasts)):
        raise ValueError("logits are not finite: the checkpoint or the features are damaged")
    evidence = weigh(logits[None], patch_logits[None], contrasts[None])
    half = (calibration or Calibration()).half_width(evidence, len(patch_logits), confidence=confidence)[0]
    centre, z = evidence.log_odds[0], logits.detach().double().cpu()
    return Prediction(torch.softmax(z, 0), torch.sigmoid(centre - half), torch.sigmoid(centre + half), z)
