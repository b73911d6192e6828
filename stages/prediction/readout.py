"""Logits -> what a prediction tells, and how likely a label is under it: one read-out for each kind of task.

A model gives logits that are unbiased for those of the model that reads everything. A read-out takes statistics of them
that are linear, or are linearised (log-odds among more than two classes), and tells monotone functions of these: so an
interval of the statistic becomes the interval of what is told, exactly, and contributions of patches add up in it.

But for classes, which have a logit each, a statistic has two logits, of what speaks for less and for more of it:
``l = z_more - z_less``, as two classes have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.prediction.kinds import Kind

EDGE = 1e-6
"""How near 0 and 1 a frequency is taken at most: one that never occurred is rare, not impossible."""


class Threshold(NamedTuple):
    """A threshold of what is told, on the scale of the statistic that tells it.

    Attributes:
        statistic: which one, by its place.
        level: of the statistic.
        rising: whether what is told is above where the statistic is; else it is below.
    """

    statistic: int
    level: float
    rising: bool = True


class Readout(nn.Module):
    """What is told of logits (..., K): values (..., T), monotone in statistics (..., Q).

    Attributes:
        outputs: K, logits that the model has to give.
        statements: intervals that are not told by each other; those of two classes mirror each other.
        linear: whether statistics are linear in the logits.
    """

    outputs: int
    statements: int
    linear = True

    def statistics(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> statistics (..., Q)."""
        return logits[..., 1::2] - logits[..., ::2]

    def slopes(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> how each statistic moves with each logit, (..., Q, K)."""
        pairs = torch.eye(self.outputs // 2, dtype=logits.dtype, device=logits.device)
        found = torch.stack([-pairs, pairs], -1).flatten(1)  # (Q, 2 Q)
        return found.expand(*logits.shape[:-1], *found.shape)

    def tell(self, statistics: Tensor) -> Tensor:
        """Statistics (..., Q) -> values (..., T)."""
        raise NotImplementedError

    def told(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> values (..., T)."""
        return self.tell(self.statistics(logits))

    def ends(self, logits: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest values (..., T) where statistics may be off by ``half`` (..., Q)."""
        centre = self.statistics(logits)
        one, other = self.tell(centre - half), self.tell(centre + half)
        return torch.minimum(one, other), torch.maximum(one, other)

    def threshold(self, place: int, at: float) -> Threshold:
        """Where the statistics put the threshold ``at`` of what is number ``place`` of all that may be decided."""
        return Threshold(place, math.log(at) - math.log1p(-at))

    def nll(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Loss of each of B slides for each of M members, (B, M): the negative log-likelihood of its label.

        Args:
            logits: (B, M, K).
            targets: (B, ...), as the read-out has them.
            weights: (B, M), how often each slide counts; only where a slide's loss depends on the others.
        """
        raise NotImplementedError

    @torch.no_grad()
    def fit(self, targets: Tensor) -> None:
        """Take what it knows without a slide from the targets (n, ...) of a cohort."""

    def constant(self, targets: Tensor) -> Tensor:
        """Logits (K,) of one who knows how frequent the targets are, and no more."""
        return torch.zeros(self.outputs)

    @torch.no_grad()
    def base(self, targets: Tensor) -> float:
        """Mean loss of one who knows how frequent the targets (n, ...) are, and no more, in nats."""
        logits = self.constant(targets).expand(len(targets), 1, -1)
        return float(self.nll(logits, targets, torch.ones(len(targets), 1)).mean())

    def poles(self, targets: Tensor) -> Tensor:
        """Which of n slides are examples of what each logit speaks for: (n, K), 1 or 0, or NaN where nobody knows."""
        raise NotImplementedError


class ClassReadout(Readout):
    """One of C classes: probabilities ``softmax z``, by the log-odds ``l_c = z_c - log sum_{j != c} exp z_j``.

    Targets: (n,) int64, the class's place.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"a prediction needs at least 2 classes, got {classes}")
        self.outputs = classes
        self.statements = classes if classes > 2 else 1
        self.linear = classes == 2

    def statistics(self, logits: Tensor) -> Tensor:
        return log_odds_of(logits)

    def slopes(self, logits: Tensor) -> Tensor:
        # d l_c / d z_j: 1 for j = c, minus the share of j among the others elsewhere
        own = torch.eye(self.outputs, dtype=logits.dtype, device=logits.device)
        return own - torch.softmax(rivals(logits), -1)

    def tell(self, statistics: Tensor) -> Tensor:
        return torch.sigmoid(statistics)

    def told(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits, -1)

    def ends(self, logits: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        centre, p = self.statistics(logits), self.told(logits)
        # where nothing is left open all three are the same, and elsewhere p lies between: not a rounding off
        low, high = (torch.where(half > 0, torch.sigmoid(centre + sign * half), p) for sign in (-1, 1))
        return torch.minimum(low, p), torch.maximum(p, high)

    def nll(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        wanted = targets.to(logits.device)[:, None].expand(logits.shape[:2])
        return functional.cross_entropy(logits.movedim(1, 2), wanted, reduction="none")

    def constant(self, targets: Tensor) -> Tensor:
        return (torch.bincount(targets, minlength=self.outputs) / len(targets)).clamp(min=EDGE).log()

    def poles(self, targets: Tensor) -> Tensor:
        return functional.one_hot(targets, self.outputs).float()


class LabelReadout(Readout):
    """Each of L labels by itself, present or not: probabilities ``sigmoid l``.

    Targets: (n, L), 1, 0, or NaN where nobody looked; a slide's loss is the mean over the labels that are known.
    """

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.outputs = 2 * labels
        self.statements = labels

    def tell(self, statistics: Tensor) -> Tensor:
        return torch.sigmoid(statistics)

    def nll(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        wanted = targets.to(logits)[:, None].expand(*logits.shape[:2], -1)
        known = ~wanted.isnan()
        each = functional.binary_cross_entropy_with_logits(
            self.statistics(logits), wanted.nan_to_num(), reduction="none"
        )
        return (each * known).sum(-1) / known.sum(-1).clamp(min=1)

    def constant(self, targets: Tensor) -> Tensor:
        odds = targets.nanmean(0).clamp(EDGE, 1 - EDGE).logit()
        return torch.stack([torch.zeros_like(odds), odds], -1).flatten()

    def poles(self, targets: Tensor) -> Tensor:
        return torch.stack([1 - targets, targets], -1).flatten(1)


class ValueReadout(Readout):
    """A number, ``centre + spread l``, by the squared error in the cohort's standard deviations.

    Targets: (n,) float. The loss is ``((y - centre) / spread - l)^2 / 2``: that of a normal distribution of unit
    spread, but for a constant.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.outputs, self.statements = 2, 1
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))
        self.register_buffer("spread", torch.ones((), dtype=torch.float64))

    def tell(self, statistics: Tensor) -> Tensor:
        return self.centre.to(statistics) + self.spread.to(statistics) * statistics

    def threshold(self, place: int, at: float) -> Threshold:
        return Threshold(0, (at - float(self.centre)) / float(self.spread))

    def nll(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        wanted = ((targets.to(self.centre) - self.centre) / self.spread).to(logits)
        return (self.statistics(logits)[..., 0] - wanted[:, None]).square() / 2

    @torch.no_grad()
    def fit(self, targets: Tensor) -> None:
        self.centre.copy_(targets.mean())
        self.spread.copy_(targets.std(correction=0))

    def poles(self, targets: Tensor) -> Tensor:
        return _halves(targets)


class GradeReadout(Readout):
    """One of C ordered grades, by proportional odds: ``P(grade > k) = sigmoid(l - cut_k)``.

    Targets: (n,) int64, the grade's place.

    Source: P. McCullagh, "Regression models for ordinal data", Journal of the Royal Statistical Society B 42, 1980.
    """

    def __init__(self, grades: int) -> None:
        super().__init__()
        if grades < 3:
            raise ValueError(f"an order needs at least 3 grades, got {grades}")
        self.outputs, self.statements = 2, 1
        self.first = nn.Parameter(torch.zeros(()))
        self.log_gaps = nn.Parameter(torch.zeros(grades - 2))

    @property
    def cuts(self) -> Tensor:
        """(C - 1,), rising."""
        return torch.cat([self.first[None], self.first + self.log_gaps.exp().cumsum(0)])

    def tell(self, statistics: Tensor) -> Tensor:
        above = torch.sigmoid(statistics - self.cuts.to(statistics))
        edge = torch.ones_like(statistics)
        return torch.cat([edge, above], -1) - torch.cat([above, 0 * edge], -1)

    def ends(self, logits: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        centre, cuts = self.statistics(logits), self.cuts.to(logits)
        low, high = centre - half, centre + half
        middle = (cuts[1:] + cuts[:-1]) / 2  # where a grade between two others is most probable
        peaks = torch.cat([middle[:1] - torch.inf, middle, middle[-1:] + torch.inf])
        at = torch.minimum(torch.maximum(peaks.expand(*low.shape[:-1], -1), low), high)  # (..., C)
        most = self.tell(at.unsqueeze(-1)).diagonal(dim1=-2, dim2=-1)
        one, other = self.tell(low), self.tell(high)
        return torch.minimum(one, other), torch.maximum(torch.maximum(one, other), most)

    def threshold(self, place: int, at: float) -> Threshold:
        """Of the chance to be above grade ``place``."""
        return Threshold(0, float(self.cuts.detach()[place]) + math.log(at) - math.log1p(-at))

    def nll(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        # log of a difference of sigmoids, which underflows where a grade is far away
        score = self.statistics(logits)  # (B, M, 1)
        cuts, edge = self.cuts.to(score), torch.full_like(score, torch.inf)
        bounds = torch.cat([edge, (score - cuts), -edge], -1)  # above the grade below, above the grade itself
        place = targets.to(logits.device)[:, None, None].expand(*score.shape[:2], 1)
        more, less = bounds.gather(-1, place)[..., 0], bounds.gather(-1, place + 1)[..., 0]
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))
        gap = torch.where(torch.isfinite(more - less), more - less, torch.ones_like(more))
        apart = torch.where(torch.isfinite(more - less), -torch.expm1(-gap), torch.ones_like(gap))
        return -(functional.logsigmoid(more) + functional.logsigmoid(-less) + apart.log())

    @torch.no_grad()
    def fit(self, targets: Tensor) -> None:
        grades = len(self.log_gaps) + 2
        share = torch.bincount(targets, minlength=grades).double().clamp(min=0.5) / max(1, len(targets))
        cuts = -(share.flip(0).cumsum(0).flip(0)[1:] / share.sum()).clamp(EDGE, 1 - EDGE).logit()
        self.first.copy_(cuts[0])
        self.log_gaps.copy_(cuts.diff().clamp(min=1e-3).log())

    def poles(self, targets: Tensor) -> Tensor:
        return _halves(targets.double())


class RiskReadout(Readout):
    """A risk, the logarithm of the hazard beside that of other patients (Cox).

    Targets: (n, 2): time until the event or until nobody looked any more, and 1 where the event was seen, else 0. The
    loss is each one's part of the negative partial likelihood among the slides that it is told with, ties by Efron:

        ``sum_i w_i (-l_i + 1 / d sum_{k < d} log(sum_{t_j >= t_i} w_j exp l_j - k / d sum_{tied j} w_j exp l_j))``

    over the events i, of which d are at the time of i.

    Sources: D. R. Cox, "Regression models and life-tables", Journal of the Royal Statistical Society B 34, 1972;
    B. Efron, "The efficiency of Cox's likelihood function for censored data", JASA 72, 1977.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outputs, self.statements = 2, 1

    def tell(self, statistics: Tensor) -> Tensor:
        return statistics

    def threshold(self, place: int, at: float) -> Threshold:
        return Threshold(0, at)

    def nll(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        risk = self.statistics(logits)[..., 0]  # (B, M)
        time, event = targets.to(risk.device).unbind(-1)
        weights = weights.to(risk)
        highest = risk.detach().amax(0, keepdim=True)
        mass = weights * (risk - highest).exp()
        at_risk = (time[None] >= time[:, None]).to(risk) @ mass
        dying = (event > 0)[:, None] & (weights > 0)
        tied = (time[None] == time[:, None]).to(risk)
        deaths = tied @ dying.to(risk)  # (B, M)
        of_dying = tied @ (mass * dying)
        told = torch.zeros_like(risk)
        for k in range(int(deaths.max()) if len(deaths) else 0):
            left = at_risk - k / deaths.clamp(min=1) * of_dying
            told = told + torch.where(dying & (k < deaths), left.clamp(min=1e-30).log(), 0.0)
        return torch.where(dying, told / deaths.clamp(min=1) + highest - risk, 0.0)

    def poles(self, targets: Tensor) -> Tensor:
        return _early(targets)


class HazardReadout(Readout):
    """A risk, and how likely the event has not come at each of T times: discrete time, with proportional odds.

    The chance that the event comes in interval t, if not before, is ``h_t = sigmoid(l + base_t)``; survival until the
    end of it is ``prod_{j <= t} (1 - h_j)``. What comes after the last time is not told. Values: ``l``, then the T.

    Targets: (n, 2), as of `RiskReadout`. Who is lost in an interval counts as seen until its beginning.

    Source: D. R. Cox (as above), section 8; M. F. Gensheimer and B. Narasimhan, "A scalable discrete-time survival
    model for neural networks", PeerJ 7, 2019.
    """

    times: Tensor

    def __init__(self, times: Sequence[float]) -> None:
        super().__init__()
        self.outputs, self.statements = 2, 1
        self.register_buffer("times", torch.tensor(times, dtype=torch.float64))
        self.base_odds = nn.Parameter(torch.zeros(len(times)))

    def tell(self, statistics: Tensor) -> Tensor:
        kept = -functional.softplus(statistics + self.base_odds.to(statistics)).cumsum(-1)
        return torch.cat([statistics, kept.exp()], -1)

    def threshold(self, place: int, at: float) -> Threshold:
        """Of the risk, or of the chance to be without the event at the end of as many intervals: the l with
        ``sum_j log(1 + exp(l + base_j)) = -log at``, above which that chance is below."""
        if place == 0:
            return Threshold(0, at)
        base = self.base_odds.detach()[:place].double().tolist()

        def excess(risk: float) -> float:
            odds = [risk + one for one in base]
            return math.log(at) + math.fsum(max(x, 0.0) + math.log1p(math.exp(-abs(x))) for x in odds)

        low, high = -1.0, 1.0
        while excess(low) > 0:
            low *= 2
        while excess(high) < 0:
            high *= 2
        while high - low > 4 * math.ulp(max(abs(low), abs(high))):
            middle = (low + high) / 2
            low, high = (low, middle) if excess(middle) > 0 else (middle, high)
        return Threshold(0, (low + high) / 2, rising=False)

    def nll(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        odds = self.statistics(logits) + self.base_odds.to(logits)  # (B, M, T)
        passed, dies = (part.to(logits.device)[:, None] for part in self._intervals(targets))
        return (passed * functional.softplus(odds) + dies * functional.softplus(-odds)).sum(-1)

    def _intervals(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Which intervals each was seen to pass, and in which its event was seen, (n, T)."""
        time, event = targets.to(self.times).unbind(-1)
        ends = self.times
        begins = torch.cat([ends.new_zeros(1), ends[:-1]])
        dies = (event > 0)[:, None] & (time[:, None] <= ends) & ((time[:, None] > begins) | (begins == 0))
        return (time[:, None] >= ends) & ~dies, dies

    @torch.no_grad()
    def fit(self, targets: Tensor) -> None:
        passed, dies = self._intervals(targets)
        share = (dies.sum(0).double() + 0.5) / (dies.sum(0) + passed.sum(0) + 1)
        self.base_odds.copy_(share.logit())

    def poles(self, targets: Tensor) -> Tensor:
        return _early(targets)


def build_readout(kind: Kind, names: Sequence[str], times: Sequence[float] = ()) -> Readout:
    """The read-out of a kind of task.

    Args:
        kind: of the task.
        names: of the classes, labels or grades; else of what is told.
        times: ends of the intervals of discrete survival.

    Raises:
        ValueError: too few of them.
    """
    match kind:
        case "classification":
            return ClassReadout(len(names))
        case "multilabel":
            return LabelReadout(len(names))
        case "ordinal":
            return GradeReadout(len(names))
        case "regression":
            return ValueReadout()
        case "survival":
            return RiskReadout()
        case "discrete_survival":
            return HazardReadout(times)


def log_odds_of(logits: Tensor) -> Tensor:
    """``l_c = z_c - log sum_{j != c} exp z_j`` of logits (..., C)."""
    return logits - rivals(logits).logsumexp(-1)


def rivals(logits: Tensor) -> Tensor:
    """Logits (..., C) -> (..., C, C), a row for each class, whose own is -inf in it."""
    own = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    return logits.unsqueeze(-2).expand(*logits.shape, -1).masked_fill(own, -torch.inf)


def _halves(values: Tensor) -> Tensor:
    """Examples of less and of more: those below and above the middle of values (n,); of what is at it, nobody knows."""
    middle = values.median() if bool((values < values.median()).any()) else values.median() + 1e-12
    more = (values > middle).float()
    at = values == middle
    if bool(at.any()) and not bool((values > middle).any()):
        more, at = (values >= middle).float(), torch.zeros_like(at)
    return torch.stack([1 - more, more], -1).masked_fill(at[:, None], torch.nan)


def _early(targets: Tensor) -> Tensor:
    """Examples of low and of high risk: seen without the event beyond the median time of events, or with it before."""
    time, event = targets.unbind(-1)
    events = time[event > 0]
    middle = events.median() if len(events) else time.median()
    early = (event > 0) & (time <= middle)
    known = early | (time > middle)
    return torch.stack([(~early).float(), early.float()], -1).masked_fill(~known[:, None], torch.nan)
