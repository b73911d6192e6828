"""A head by its name."""

from __future__ import annotations

from collections.abc import Sequence

from stages.mil.contextual import EvidencePooling
from stages.mil.pooling import GatedPooling, MeanPooling
from stages.mil.transmil import TransMILPooling

HEADS = ("evidence", "gated", "mean", "transmil")

Pooling = EvidencePooling | GatedPooling | MeanPooling | TransMILPooling


def build_pooling(name: str, *, members: int, classes: int, components: int, sides: Sequence[int] = (1,)) -> Pooling:
    """Make the head of this name.

    Args:
        name: one of `HEADS`.
        members, classes, components: K members, C classes and r directions of features.
        sides: of the squares, in cells, that the evidence head sees a cell with.

    Raises:
        ValueError: another name.
    """
    sizes = {"members": members, "classes": classes, "components": components}
    if name == "evidence":
        return EvidencePooling(**sizes, sides=sides)
    if name == "gated":
        return GatedPooling(**sizes)
    if name == "mean":
        return MeanPooling(**sizes)
    if name == "transmil":
        return TransMILPooling(**sizes)
    raise ValueError(f"unknown head {name!r}; expected one of {', '.join(HEADS)}")
