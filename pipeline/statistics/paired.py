"""Two models on the same slides: how far their AUROCs differ, with an interval that respects patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 2000
"""Bootstrap samples of the patients."""


class Difference(NamedTuple):
    """``AUROC(one) - AUROC(other)`` and its 95 % interval; None where the bootstrap cannot tell one."""

    value: float
    low: float | None
    high: float | None


def auroc_difference(
    labels: Sequence[int], one: ArrayLike, other: ArrayLike, patients: Sequence[str], *, seed: int = 0
) -> Difference | None:
    """By how much one model's AUROC is above another's on the same slides; None where they are of one class.

    The interval is the paired percentile bootstrap's: patients are drawn with replacement, each with all their slides
    and both models' predictions, among those of the same classes, so that none is lost; its ends are the 2.5 % and
    97.5 % quantiles of the difference (Efron, 1979). Where all samples give the same difference, as when both models
    are perfect, it tells nothing and there is none.

    Args:
        labels: index of each slide's class, (n,).
        one, other: probabilities (n, C) of the two models; of two classes the last is the positive, of more the AUROC
            is the mean of those of one class against the rest, over the classes that occur.
        patients: whose slide it is, (n,).
        seed: of the draws.
    """
    y, people = np.asarray(labels), np.asarray(patients)
    present = np.unique(y)
    if len(present) < 2:
        return None
    both = [np.asarray(p, np.float64) for p in (one, other)]
    _, owner = np.unique(people, return_inverse=True)
    weights = _drawn(y, owner, np.random.default_rng(seed))[:, owner]  # (1 + DRAWS, n); the first row is the slides'
    kinds = present if both[0].shape[1] > 2 else present[1:]
    found = [np.mean([_auroc(y == c, p[:, c], weights) for c in kinds], axis=0) for p in both]
    gaps = found[0] - found[1]
    low, high = np.quantile(gaps[1:], [0.025, 0.975])
    told = len(np.unique(owner)) > 1 and float(np.ptp(gaps[1:])) > 1e-12
    return Difference(float(gaps[0]), float(low) if told else None, float(high) if told else None)


def _drawn(y: NDArray[np.int64], owner: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.float64]:
    """How often each patient is drawn, (1 + DRAWS, patients): once in the first row."""
    kinds: dict[tuple[int, ...], list[int]] = {}
    for patient in range(owner.max() + 1):
        kinds.setdefault(tuple(np.unique(y[owner == patient]).tolist()), []).append(patient)
    counts = np.ones((1 + DRAWS, owner.max() + 1))
    for members in kinds.values():
        n = len(members)
        counts[1:, members] = random.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    return counts


def _auroc(
    positive: NDArray[np.bool_], score: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AUROC for each row of slides' weights (B, n): the share of pairs that are in order, ties half."""
    above = score[positive][:, None] - score[~positive]
    wins = (above > 0) + 0.5 * (above == 0)
    w_p, w_n = weights[:, positive], weights[:, ~positive]
    pairs: NDArray[np.float64] = ((w_p @ wins) * w_n).sum(1) / (w_p.sum(1) * w_n.sum(1))
    return pairs
