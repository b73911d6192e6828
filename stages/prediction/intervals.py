"""How far a draw's statistics may lie from the exhaustive ones: by what it tells, and by how a cohort's draws fell.

Statistics are what a read-out takes of the logits: of classes their log-odds (`stages.prediction.readout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from stages.prediction.readout import ClassReadout, Readout

SLIGHT = 1e-3
"""Share of the variance of all drawn patches below which a smaller variance is not believed: few draws look alike."""

FAR = 0.9975
"""Confidence of the farther factors: that of a decision at a risk of .01, shared by eight looks."""

ROUNDING = 1e-5
"""Differences of log-odds between patches up to which they are all one: features and the head are float32."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What draws of B slides tell about C statistics, of classes their log-odds; all float64.

    Attributes:
        statistics: (B, C), of the estimated logits.
        unit: (B, 1), sum of the squared contrasts: the estimate's variance if patches differed by 1 at random.
        freedom: (B, 1), different patches left to chance, less one (0 at least); with two levels (B, C), of regions and
            patches.
        by_design: (B, C), the design's unbiased variance, in these units.
        among_random: (B, C), variance among the patches that were left to chance.
        among_all: (B, C), variance among all that were drawn, those drawn for sure included.
        freedom_all: its freedom, as ``freedom`` is that of ``among_random``.
        statements: how many of the statistics' intervals are not told by the others.
    """

    statistics: Tensor
    unit: Tensor
    freedom: Tensor
    by_design: Tensor
    among_random: Tensor
    among_all: Tensor
    freedom_all: Tensor
    statements: int = 1

    def with_each(self, make: Callable[[str], Tensor]) -> Evidence:
        """The same with other tensors, each of which ``make`` gives by its name."""
        tensors: dict[str, Any] = {field.name: make(field.name) for field in fields(self) if field.name != "statements"}
        return replace(self, **tensors)


@dataclass(frozen=True, slots=True)
class Stages:
    """Of a draw of R regions, then of N patches in each: what of it is a region's, and what a patch's.

    Attributes:
        regions: (B, R), which they are.
        shares: (B, R, N), each patch's weight times its attention: its part of what is said of its region.
        between: how many contrasts, the first ones, compare regions; the others compare patches of one region.
    """

    regions: Tensor
    shares: Tensor
    between: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How draws of a cohort's slides spread: what one draw of few patches cannot tell (`pipeline.train.calibrate`).

    A draw's own variance is shrunk, in logarithms, towards what slides whose patches differ as much as this one's
    usually have (a generalised variance function: K. M. Wolter, *Introduction to Variance Estimation*, ch. 7):

        ``log V = w (eta log by_design + (1 - eta) log among_random) + (1 - w) (alpha + beta log among_all) + log unit``

    with ``w = freedom / (freedom + worth)``; the half-width is ``factor(N) t_{freedom + worth} sqrt(V)``. Of several
    statements, as about more than two classes, all intervals hold together: the level of ``t`` is shared out over them
    (Bonferroni), and the factor takes back what that is too wide on the cohort.
    The default knows no cohort and takes the patches of a slide as
    exchangeable; what it adds is then worth no more than the patches that were drawn for sure.

    Attributes:
        alpha, beta: level and slope of the cohort's variance.
        eta: weight of the design's variance, which knows that neighbours are alike; the other has more freedom.
        worth: draws that the cohort's word is worth.
        budgets, factors: what the half-width is multiplied by at so many draws (interpolated in their logarithm).
        fitted: whether it knows a cohort.
        far: the same at confidence `FAR`, and beyond; between the two geometrically in the logarithm of what is left.
            Empty: nobody looked so far into the tail (models of earlier versions).
    """

    alpha: float = 0.0
    beta: float = 1.0
    eta: float = 0.5
    worth: float = 4.0
    budgets: tuple[int, ...] = (1,)
    factors: tuple[float, ...] = (1.0,)
    fitted: bool = True
    far: tuple[float, ...] = ()

    def variance(self, evidence: Evidence) -> Tensor:
        """``V`` (B, C)."""
        floor = SLIGHT * evidence.among_all + torch.finfo(torch.float64).tiny
        own = self.eta * (evidence.by_design + floor).log() + (1 - self.eta) * (evidence.among_random + floor).log()
        cohort = self.alpha + self.beta * (evidence.among_all + floor).log()
        w = evidence.freedom / (evidence.freedom + self.worth)
        return (w * own + (1 - w) * cohort).exp() * evidence.unit

    def half_width(self, evidence: Evidence, drawn: int, *, confidence: float = 0.95) -> Tensor:
        """Half the interval of the statistics, (B, C), from ``drawn`` cells; ``confidence`` is of all of them jointly.

        Infinite where chance drew the same cell every time: that tells nothing of the others.
        """
        factor = float(np.interp(np.log(drawn), np.log(self.budgets), self.factors))
        if self.far and confidence > 0.95:
            farther = float(np.interp(np.log(drawn), np.log(self.budgets), self.far)) / factor
            factor *= farther ** float(min(1.0, np.log((1 - confidence) / 0.05) / np.log((1 - FAR) / 0.05)))
        alone = 1 - (1 - confidence) / evidence.statements
        freedom = evidence.freedom + self.worth
        if not self.fitted:
            freedom = torch.minimum(freedom, evidence.freedom_all.clamp(min=1))
        quantile = stdtrit(freedom.numpy(), 0.5 + alone / 2)
        half = factor * torch.from_numpy(np.asarray(quantile)) * self.variance(evidence).sqrt()
        return half.masked_fill((evidence.unit > 0) & (evidence.freedom_all == 0), torch.inf)


UNFITTED = Calibration(fitted=False)
"""What a slide tells by itself."""


def weigh(
    logits: Tensor,
    patch_logits: Tensor,
    contrasts: Tensor,
    *,
    cells: Tensor | None = None,
    stages: Stages | None = None,
    readout: Readout | None = None,
) -> Evidence:
    """What draws tell about each statistic, linearised at the estimate.

    Patch ``m`` adds ``y_m`` to the statistic per unit of attention. But for more than two classes this is exact, so the
    interval is free of the bias that a nonlinear head adds (Jensen).

    Patches of one region are alike, so with two levels a region counts once: by its patches' mean, among the regions.
    What differs within regions is evidence of its own, and the variance is the sum of the two, with the freedom of
    such a sum (F. E. Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics 2,
    1946).

    Args:
        logits: (B, C), of the slides.
        patch_logits: (B, M, C), each drawn patch's logits without the head's constant.
        contrasts: (B, H, M), ``k_hm``: those of the draw times the patches' attention.
        cells: (B, M), which they are: one that is drawn again tells nothing new. Default: all different.
        stages: of a draw of regions, then of patches in them.
        readout: what statistics are of logits; default: the log-odds of as many classes.
    """
    z, k = logits.detach().cpu().double(), contrasts.detach().cpu().double()
    readout = ClassReadout(z.shape[-1]) if readout is None else readout
    y = patch_logits.detach().cpu().double() @ readout.slopes(z).transpose(-1, -2)  # (B, M, C)
    statistics = readout.statistics(z)
    cells = torch.arange(y.shape[1]).expand(y.shape[:2]) if cells is None else cells.cpu()
    if stages is None:
        found = _told(statistics, k.unsqueeze(2), y.unsqueeze(1), cells.unsqueeze(1))
        return replace(found, statements=readout.statements)
    shares = stages.shares.detach().cpu().double()
    y, k = y.unflatten(1, shares.shape[1:]), k.unflatten(2, shares.shape[1:])  # (B, R, N, C), (B, H, R, N)
    real = shares > 0  # the others only fill up regions of few cells
    mean = (shares.unsqueeze(-1) * y).sum(2) / shares.sum(2).clamp(min=torch.finfo(torch.float64).tiny).unsqueeze(-1)
    apart, together = k[:, : stages.between].sum(3), k[:, stages.between :]
    found = _summed(
        _told(statistics, apart.unsqueeze(2), mean.unsqueeze(1), stages.regions.cpu().unsqueeze(1)),
        _told(statistics, together, y, cells.unflatten(1, shares.shape[1:]), real=real),
    )
    return replace(found, statements=readout.statements)


def _told(statistics: Tensor, k: Tensor, y: Tensor, units: Tensor, *, real: Tensor | None = None) -> Evidence:
    """Evidence of contrasts (B, H, G, M) among ``units`` (B, G, M), whose values are ``y`` (B, G, M, C), that are
    compared within each of G groups; of those that are ``real`` (B, G, M), default all."""
    real = torch.ones(y.shape[:3], dtype=torch.bool) if real is None else real
    unit = k.square().sum((1, 2, 3)).unsqueeze(-1)
    chance = (k != 0).any(1)  # (B, G, M)
    (freedom, among_random), (freedom_all, among_all) = _within(y, chance, units), _within(y, real, units)
    return Evidence(
        statistics=statistics,
        unit=unit,
        freedom=freedom,
        by_design=torch.einsum("bhgm,bgmc->bhc", k, y).square().sum(1)
        / unit.clamp(min=torch.finfo(torch.float64).tiny),
        among_random=among_random,
        among_all=among_all,
        freedom_all=freedom_all,
    )


def _within(y: Tensor, chosen: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Degrees of freedom (B, 1) and variance (B, C) of the chosen (B, G, M) of ``y`` (B, G, M, C) within groups."""
    count = chosen.sum(2, keepdim=True)
    mean = (y * chosen.unsqueeze(-1)).sum(2, keepdim=True) / count.clamp(min=1).unsqueeze(-1)
    spread = ((y - mean).square() * chosen.unsqueeze(-1)).sum((1, 2))
    ordered = units.masked_fill(~chosen, -1).sort(2).values
    different = (ordered.diff(dim=2, prepend=ordered.new_full((*ordered.shape[:2], 1), -1)) != 0).sum(2)
    return (
        (different - 1).clamp(min=0).sum(1, keepdim=True).double(),
        spread / (count - 1).clamp(min=0).sum(1).clamp(min=1),
    )


def _summed(one: Evidence, other: Evidence) -> Evidence:
    """Evidence of an estimate whose variance is the sum of two."""
    unit = one.unit + other.unit
    part = one.unit / unit.clamp(min=torch.finfo(torch.float64).tiny)

    def mixed(name: str) -> Tensor:
        mean: Tensor = part * getattr(one, name) + (1 - part) * getattr(other, name)
        return mean

    def freedom(name: str) -> Tensor:
        def of(v: Tensor, u: Tensor) -> Tensor:
            spent = v.square() / getattr(one, name).clamp(min=1) + u.square() / getattr(other, name).clamp(min=1)
            return torch.where(spent > 0, (v + u).square() / spent, 0.0)

        # two regions may look alike by luck: no more freedom than if regions differed as much as patches do
        fewest = torch.minimum(of(one.unit * one.among_all, other.unit * other.among_all), of(one.unit, other.unit))
        # patches tell nothing of regions that were not drawn
        return fewest.masked_fill((one.unit > 0) & (getattr(one, name) == 0), 0.0)

    return Evidence(
        statistics=one.statistics,
        unit=unit,
        freedom=freedom("freedom"),
        by_design=mixed("by_design"),
        among_random=mixed("among_random"),
        among_all=mixed("among_all"),
        freedom_all=freedom("freedom_all"),
    )


def joined(parts: Sequence[Evidence]) -> Evidence:
    """Evidence of several sets of draws as that of one."""
    return parts[0].with_each(lambda name: torch.cat([getattr(part, name) for part in parts]))


def fit_calibration(found: dict[int, list[tuple[Evidence, Tensor]]]) -> Calibration | None:
    """Fit `Calibration` to the evidence and errors of draws; None where none left anything to chance.

    The parameters maximise the likelihood of the errors under the rule's own t distributions; then each budget's factor
    is the 95 % quantile of the errors relative to the half-width, of each draw the largest over its statistics, every
    slide counting alike, and its farther factor, which is no less, the quantile at `FAR` (split conformal prediction
    over draws: V. Vovk, A. Gammerman and G. Shafer, *Algorithmic Learning in a Random World*).

    Args:
        found: for every budget a list of slides, each the evidence of its draws and by how much their statistics
            fell from the exhaustive ones, (draws, C).
    """
    by_budget = {
        n: _left_open(joined([evidence for evidence, _ in parts]), torch.cat([errors for _, errors in parts]))
        for n, parts in found.items()
    }
    by_budget = {n: (evidence, errors) for n, (evidence, errors) in by_budget.items() if len(errors)}
    if not by_budget:
        return None
    # deferred: only training fits, and these take most of a second to import
    from scipy.optimize import minimize
    from scipy.stats import t as student_t

    start = Calibration()
    every = [_class_by_class(*one) for one in by_budget.values()]

    def rule(p: NDArray[np.float64]) -> Calibration:
        eta, worth = 1 / (1 + np.exp(-p[2])), np.exp(p[3])
        return replace(start, alpha=float(p[0]), beta=float(p[1]), eta=float(eta), worth=float(worth))

    def loss(p: NDArray[np.float64]) -> float:
        calibration, total = rule(p), 0.0
        for evidence, errors in every:
            scale = calibration.variance(evidence).sqrt().numpy()
            freedom = (evidence.freedom + calibration.worth).numpy()
            total -= float((student_t.logpdf(errors.numpy() / scale, freedom) - np.log(scale)).mean())
        # a mild pull towards the start, for cohorts that do not tell
        return total + 1e-4 * float(np.square(p - first).sum())

    first = np.array([start.alpha, start.beta, 0.0, np.log(start.worth)])
    simplex = np.vstack([first, first + np.diag([1.0, -0.5, 1.0, 1.0])])
    options: Any = {"maxiter": 400, "xatol": 1e-2, "fatol": 1e-4, "initial_simplex": simplex}
    fitted = rule(minimize(loss, first, method="Nelder-Mead", options=options).x)

    def needed(n: int, confidence: float) -> float:
        evidence, errors = by_budget[n]
        away = (errors.abs() / fitted.half_width(evidence, n, confidence=confidence))[:, _told_by(evidence)].amax(1)
        return float(torch.quantile(away, confidence))

    factors = tuple(needed(n, 0.95) for n in by_budget)
    far = tuple(max(needed(n, FAR), factor) for n, factor in zip(by_budget, factors, strict=True))
    return replace(fitted, budgets=tuple(by_budget), factors=factors, far=far)


def _left_open(evidence: Evidence, errors: Tensor) -> tuple[Evidence, Tensor]:
    """Only draws that left something to chance: not all cells for sure, nor patches that are all one to the model,
    whose errors are rounding."""
    rows = (evidence.unit[:, 0] > 0) & (evidence.among_all > ROUNDING**2).any(1)
    return evidence.with_each(lambda name: getattr(evidence, name)[rows]), errors[rows]


def _class_by_class(evidence: Evidence, errors: Tensor) -> tuple[Evidence, Tensor]:
    """A row for each statistic of each draw."""
    columns = _told_by(evidence)
    wide = errors[:, columns].shape

    def flat(values: Tensor) -> Tensor:
        return (values[:, columns] if values.shape[1] > 1 else values).expand(wide).reshape(-1, 1)

    return evidence.with_each(lambda name: flat(getattr(evidence, name))), flat(errors)


def _told_by(evidence: Evidence) -> slice:
    """The columns (B, C) that tell all: of two classes, which mirror each other, the second."""
    return slice(evidence.statistics.shape[1] - evidence.statements, None)
