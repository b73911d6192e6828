"""How well scores rank positives above negatives: AUROC and average precision, with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.intervals import (
    Interval,
    alikeness,
    auroc_by_chance,
    auroc_interval,
    independent,
    share_interval,
)
from stages.torchvision import admit_torchvision


class Ranking(NamedTuple):
    """AUROC and average precision with the ends of their 95 % intervals, and what chance gives of so many patients."""

    auroc: tuple[float, float, float]
    auprc: tuple[float, float, float]
    by_chance: float


def ranked(positive: NDArray[np.bool_], scores: NDArray[np.float64], owner: NDArray[np.int64]) -> Ranking | None:
    """How well scores rank, with `auroc_interval` and Wilson's; None where slides are of one class.

    The slides of a patient count as far as they differ (`alikeness`).

    Args:
        positive: which slides are positive, (n,).
        scores: (n,), higher where more likely positive; ties count half.
        owner: whose slide it is, (n,), as numbers.
    """
    import torch

    admit_torchvision()
    from torchmetrics.functional.classification import binary_average_precision

    if positive.all() or not positive.any():
        return None
    alike = alikeness(scores, owner, positive)
    m, n = independent(owner[positive], alike), independent(owner[~positive], alike)
    above, below = placements(positive, scores)
    auroc = float(above.mean())
    spread = (_between(above, owner[positive]), _between(below, owner[~positive]))
    auprc = float(
        binary_average_precision(torch.from_numpy(scores), torch.from_numpy(positive).long(), validate_args=False)
    )
    interval: Interval = auroc_interval(auroc, m, n, spread=spread)
    # whose labels are drawn by lot are patients, however much their slides differ
    by_chance = auroc_by_chance(independent(owner[positive]), independent(owner[~positive]))
    return Ranking((auroc, *interval), (auprc, *share_interval(auprc, m)), by_chance)


def ranked_within(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], owner: NDArray[np.int64], groups: Sequence[Any]
) -> tuple[float, float, float] | None:
    """AUROC over the pairs within a group, with its 95 % interval; None where no group has slides of both classes.

    Slides of several folds are scored by several models, whose scores need not be on one scale: pooled, their AUROC is
    too low on few patients, for a fold whose training had more positives scores all higher (Forman & Scholz 2010).

    Args:
        positive, scores, owner: as for `ranked`.
        groups: each slide's, (n,).
    """
    names = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)[1]
    alike = alikeness(scores, owner, positive + 2 * names)
    wins, pairs, m, n, above, below = 0.0, 0, [], [], [], []
    for group in range(names.max() + 1):
        inside = names == group
        here = positive[inside]
        if here.all() or not here.any():
            continue
        up, down = placements(here, scores[inside])
        size = int(here.sum() * (~here).sum())
        wins, pairs = wins + float(up.mean()) * size, pairs + size
        m.append(independent(owner[inside & positive], alike))
        n.append(independent(owner[inside & ~positive], alike))
        above.append(_between(up, owner[inside & positive]))
        below.append(_between(down, owner[inside & ~positive]))
    if not pairs:
        return None
    value = wins / pairs
    return (value, *auroc_interval(value, m, n, spread=(float(np.mean(above)), float(np.mean(below)))))


def placements(
    positive: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each positive the share of negatives below it, of each negative that of positives above it; ties half."""
    high, low = scores[positive], scores[~positive]

    def below(one: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
        ordered = np.sort(others)
        both = np.searchsorted(ordered, one, "left") + np.searchsorted(ordered, one, "right")
        share: NDArray[np.float64] = both / (2 * len(others))
        return share

    return below(high, low), 1 - below(low, high)


def _between(placed: NDArray[np.float64], owner: NDArray[np.int64]) -> float:
    """Variance of the patients' mean placements; 0 of one patient."""
    counts = np.bincount(owner)
    means = np.bincount(owner, placed)[counts > 0] / counts[counts > 0]
    return float(means.var(ddof=1)) if len(means) > 1 else 0.0
