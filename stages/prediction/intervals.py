"""How far a draw's log-odds may lie from the exhaustive ones: by what it tells, and by how a cohort's draws fell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

SLIGHT = 1e-3
"""Share of the variance of all drawn patches below which a smaller variance is not believed: few draws look alike."""


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
        quantile = stdtrit((evidence.freedom + self.worth).numpy(), 0.5 + confidence / 2)
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
    z, k = logits.detach().cpu().double(), contrasts.detach().cpu().double()
    others = z.unsqueeze(-2).expand(*z.shape, -1).masked_fill(torch.eye(z.shape[-1], dtype=torch.bool), -torch.inf)
    # d l_c / d z_j: 1 for j = c, minus the share of j among the others elsewhere
    slopes = torch.eye(z.shape[-1], dtype=torch.float64) - torch.softmax(others, -1)
    y = patch_logits.detach().cpu().double() @ slopes.transpose(-1, -2)  # (B, M, C)
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


def joined(parts: Sequence[Evidence]) -> Evidence:
    """Evidence of several sets of draws as that of one."""
    return Evidence(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Evidence)))


def fit_calibration(found: dict[int, list[tuple[Evidence, Tensor]]]) -> Calibration | None:
    """Fit `Calibration` to the evidence and errors of draws; None where none left anything to chance.

    The parameters maximise the likelihood of the errors under the rule's own t distributions; then each budget's factor
    is the 95 % quantile of the errors relative to the half-width, every slide counting alike (split conformal
    prediction over draws: V. Vovk, A. Gammerman and G. Shafer, *Algorithmic Learning in a Random World*).

    Args:
        found: for every budget a list of slides, each the evidence of its draws and by how much their log-odds fell
            from the exhaustive ones, (draws, C).
    """
    by_budget = {
        n: _open_ends(joined([evidence for evidence, _ in parts]), torch.cat([errors for _, errors in parts]))
        for n, parts in found.items()
    }
    by_budget = {n: (evidence, errors) for n, (evidence, errors) in by_budget.items() if len(errors)}
    if not by_budget:
        return None
    # deferred: only training fits, and these take most of a second to import
    from scipy.optimize import minimize
    from scipy.stats import t as student_t

    start = Calibration()

    def rule(p: NDArray[np.float64]) -> Calibration:
        eta, worth = 1 / (1 + np.exp(-p[2])), np.exp(p[3])
        return replace(start, alpha=float(p[0]), beta=float(p[1]), eta=float(eta), worth=float(worth))

    def loss(p: NDArray[np.float64]) -> float:
        calibration, total = rule(p), 0.0
        for evidence, errors in by_budget.values():
            scale = calibration.variance(evidence).sqrt().numpy()
            freedom = (evidence.freedom + calibration.worth).numpy()
            total -= float((student_t.logpdf(errors.numpy() / scale, freedom) - np.log(scale)).mean())
        # a mild pull towards the start, for cohorts that do not tell
        return total + 1e-4 * float(np.square(p - first).sum())

    first = np.array([start.alpha, start.beta, 0.0, np.log(start.worth)])
    simplex = np.vstack([first, first + np.diag([1.0, -0.5, 1.0, 1.0])])
    options: Any = {"maxiter": 400, "xatol": 1e-2, "fatol": 1e-4, "initial_simplex": simplex}
    fitted = rule(minimize(loss, first, method="Nelder-Mead", options=options).x)
    factors = tuple(
        float(torch.quantile(errors.abs() / fitted.half_width(evidence, n), 0.95))
        for n, (evidence, errors) in by_budget.items()
    )
    return replace(fitted, budgets=tuple(by_budget), factors=factors)


def _open_ends(evidence: Evidence, errors: Tensor) -> tuple[Evidence, Tensor]:
    """Only draws that left something to chance, a row for each of their classes; of two classes, which mirror each
    other, the second."""
    rows = evidence.unit[:, 0] > 0
    columns = slice(1, None) if errors.shape[1] == 2 else slice(None)
    wide = errors[rows, columns].shape

    def flat(values: Tensor) -> Tensor:
        part = values[rows]
        return (part[:, columns] if part.shape[1] > 1 else part).expand(wide).reshape(-1, 1)

    return Evidence(*(flat(getattr(evidence, field.name)) for field in fields(Evidence))), flat(errors)
