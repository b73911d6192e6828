"""From a draw's estimate of a slide to its prediction, with intervals.

The head is linear in the slide embedding, so the logits are unbiased for those of the model that reads everything.
Averaging *logits* keeps that; averaging probabilities would add the head's curvature. The interval is about reading: it
is for the probability that the same model would give after reading every patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.prediction.intervals import UNFITTED, Calibration, Stages, weigh


@dataclass(frozen=True, slots=True)
class Prediction:
    """Class probabilities of one slide and what sampling leaves open about them.

    Attributes:
        probabilities: (C,), softmax of the logits.
        low, high: (C,), ends of the interval for the exhaustive model's probability at the stated confidence.
        logits: (C,).
        half_widths: (C,), of the intervals of the log-odds ``l_c = z_c - log sum_{j != c} exp z_j``.
    """

    probabilities: Tensor
    low: Tensor
    high: Tensor
    logits: Tensor
    half_widths: Tensor

    @property
    def reach(self) -> float:
        """How far an interval reaches at most from its probability, over the classes."""
        return float(torch.maximum(self.probabilities - self.low, self.high - self.probabilities).max())


def predict(
    logits: Tensor,
    patch_logits: Tensor,
    contrasts: Tensor,
    *,
    cells: Tensor | None = None,
    stages: Stages | None = None,
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
        cells: (M,), which they are: one that is drawn again tells nothing new. Default: all different.
        stages: of a draw of regions, then of patches in them.
        calibration: the cohort's; default: what a slide tells by itself.
        confidence: of the interval.

    Raises:
        ValueError: fewer than two classes, or values that are not finite.
    """
    if logits.shape[0] < 2:
        raise ValueError(f"a prediction needs at least 2 classes, got {logits.shape[0]}")
    if not all(bool(torch.isfinite(values).all()) for values in (logits, patch_logits, contrasts)):
        raise ValueError("logits are not finite: the checkpoint or the features are damaged")
    which = None if cells is None else cells[None]
    evidence = weigh(logits[None], patch_logits[None], contrasts[None], cells=which, stages=stages)
    half = (calibration or UNFITTED).half_width(evidence, len(patch_logits), confidence=confidence)[0]
    centre, z = evidence.log_odds[0], logits.detach().cpu().double()
    p = torch.softmax(z, 0)
    # where nothing is left open all three are the same, and elsewhere p lies between: not a rounding off
    low, high = (torch.where(half > 0, torch.sigmoid(centre + sign * half), p) for sign in (-1, 1))
    return Prediction(p, torch.minimum(low, p), torch.maximum(p, high), z, half)
