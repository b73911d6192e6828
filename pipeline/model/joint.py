"""A patient's slides as one view: their cells on one grid, each slide's own pixels behind its cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import reason_of
from pipeline.model.stack import Cells, Stack
from pipeline.model.values import View
from stages.slide.facts import SlideError


class PartError(SlideError):
    """One of a patient's slides cannot be read; the others may.

    Attributes:
        part: its view.
        reason: what came of it.
    """

    def __init__(self, part: View, reason: Exception) -> None:
        super().__init__(part, reason)
        self.part, self.reason = part, reason
        self.__cause__ = reason

    def __str__(self) -> str:
        return reason_of(self.reason)


@dataclass(frozen=True, slots=True)
class JointReader:
    """Reads the patches of cells of several slides.

    Attributes:
        stack: where the slides' cells lie.
        parts: the slides' views.
    """

    stack: Stack
    parts: tuple[View, ...]

    def pieces(self, cells: Cells) -> list[tuple[View, Cells, Any]]:
        """Of cells (N,): each slide that has some, which of the N they are, and their patches, lazy or real."""
        found = self.stack.split(cells)
        return [(self.parts[i], places, self.parts[i].patches(own)) for i, places, own in found]

    def __call__(self, cells: Cells) -> NDArray[np.uint8]:
        """Patches (N, P, P, 3) of the cells, read now."""
        pieces = [(places, np.asarray(patches)) for _, places, patches in self.pieces(cells)]
        return put_together(len(cells), pieces)


def put_together(count: int, pieces: Sequence[tuple[Cells, NDArray[Any]]]) -> NDArray[Any]:
    """``count`` things from those (n, ...) that are at some places (n,) each."""
    out = np.empty((count, *pieces[0][1].shape[1:]), pieces[0][1].dtype)
    for places, found in pieces:
        out[places] = found
    return out


def joint_view(views: Sequence[View], apart: int) -> View:
    """The views of a patient's slides as one, in their order; of one slide it is that slide's.

    Args:
        views: one or more.
        apart: empty rows between slides: `ModelSpec.apart`.
    """
    if len(views) == 1:
        return views[0]
    parts = tuple(views)
    stack = Stack(tuple((one.tissue.shape[0], one.tissue.shape[1]) for one in parts), apart)
    tissue = stack.joined([torch.from_numpy(one.tissue) for one in parts]).numpy()
    return View(
        np.zeros((0, 0, 3), np.uint8),
        tissue,
        JointReader(stack, parts),
        prior=_prior(parts, stack),
        parts=parts,
        apart=apart,
    )


def _prior(parts: Sequence[View], stack: Stack) -> NDArray[np.float64] | None:
    """Each slide's map weighs as much as its tissue."""
    maps = [one.prior for one in parts if one.prior is not None]
    if len(maps) < len(parts):
        return None
    total = sum(int(one.tissue.sum()) for one in parts)
    shares = [given * (one.tissue.sum() / total) for given, one in zip(maps, parts, strict=True)]
    return stack.joined([torch.from_numpy(share) for share in shares]).numpy()


def spared(exc: Exception, reason: str) -> bool:
    """Do without the slides of patients that an error is of, if it is of such; what failed may then be tried again.

    Args:
        exc: the error.
        reason: what is told of them.
    """
    found = getattr(exc, "reasons", {0: exc}).values()
    lost: list[Callable[[str], None]] = [
        one.part.lose for one in found if isinstance(one, PartError) and one.part.lose is not None
    ]
    for lose in lost:
        lose(reason)
    return bool(lost)
