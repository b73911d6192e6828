"""From a draw's estimate of a slide to its prediction, with intervals.

The head is linear in the slide embedding, so the logits are unbiased for those of the model that reads everything.
Averaging *logits* keeps that; averaging probabilities would add the head's curvature. The interval is about reading: it
is for what the same model would tell after reading every patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.prediction.intervals import UNFITTED, Calibration, Stages, weigh
from stages.prediction.readout import ClassReadout, Readout


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is told of one slide and what sampling leaves open about it.

    Attributes:
        values: (T,), what the read-out tells of the logits: of classes their probabilities.
        low, high: (T,), ends of the interval for the exhaustive model's values at the stated confidence.
        logits: (K,).
        half_widths: (Q,), of the intervals of the read-out's statistics: of classes their log-odds.
    """

    values: Tensor
    low: Tensor
    high: Tensor
    logits: Tensor
    half_widths: Tensor

    @property
    def reach(self) -> float:
        """How far an interval reaches at most from its value."""
        return float(torch.maximum(self.values - self.low, self.high - self.values).max())


@torch.no_grad()
def predict(
    logits: Tensor,
    patch_logits: Tensor,
    contrasts: Tensor,
    *,
    cells: Tensor | None = None,
    stages: Stages | None = None,
    calibration: Calibration | None = None,
    confidence: float = 0.95,
    readout: Readout | None = None,
) -> Prediction:
    """Prediction from a slide's estimated logits and what of them was left to chance.

    What is told is monotone in the read-out's statistics, so the ends of their intervals are those of its values too:
    of class ``c`` it is ``sigmoid(l_c +- half-width)``, with ``l_c`` its log-odds.

    Args:
        logits: (K,), of the slide.
        patch_logits: (M, K), each drawn patch's logits without the head's constant.
        contrasts: (H, M), ``k_hm``: the draw's contrasts times the patches' attention; zero where nothing was left to
            chance, as on a slide that was read whole.
        cells: (M,), which they are: one that is drawn again tells nothing new. Default: all different.
        stages: of a draw of regions, then of patches in them.
        calibration: the cohort's; default: what a slide tells by itself.
        confidence: of the interval.
        readout: what is told of logits; default: the probabilities of as many classes.

    Raises:
        ValueError: fewer than two classes, or values that are not finite.
    """
    readout = ClassReadout(logits.shape[0]) if readout is None else readout
    if not all(bool(torch.isfinite(values).all()) for values in (logits, patch_logits, contrasts)):
        raise ValueError("logits are not finite: the checkpoint or the features are damaged")
    which = None if cells is None else cells[None]
    evidence = weigh(logits[None], patch_logits[None], contrasts[None], cells=which, stages=stages, readout=readout)
    half = (calibration or UNFITTED).half_width(evidence, len(patch_logits), confidence=confidence)[0]
    z = logits.detach().cpu().double()
    return Prediction(readout.told(z), *readout.ends(z, half), z, half)
