"""What the bags of a cohort have in common: one size of tiles, one length of features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Tiles:
    """Of what a bag's tiles are.

    Attributes:
        px: side of a tile in its own pixels.
        mpp: µm per pixel of a tile.
        dim: length of a feature.
        encoder: what made them, as the bag calls it; None: it does not say.
    """

    px: int
    mpp: float
    dim: int
    encoder: str | None = None


def most_have(found: Iterable[Tiles]) -> Tiles:
    """What most bags have, each for itself; of the resolutions of those with that size the median, to six digits, for
    sides in whole level-0 pixels leave a digit or two of noise.

    Args:
        found: one or more.
    """
    bags = list(found)
    px, dim = (Counter(values).most_common(1)[0][0] for values in ([b.px for b in bags], [b.dim for b in bags]))
    told = Counter(bag.encoder for bag in bags if bag.encoder is not None)
    mpp = float(f"{np.median([bag.mpp for bag in bags if bag.px == px]):.6g}")
    return Tiles(px, mpp, dim, told.most_common(1)[0][0] if told else None)
