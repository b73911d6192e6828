"""Look after look at one slide: what may still be drawn, and what all that was read adds up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.values import AttentionMap, PlacedDraw, View
from stages.sampling.designs import Draw
from stages.sampling.looks import combine, foreseen_variances, look_shares


def look_totals(first: int, most: int, *, fewest: int, tissue: int) -> list[int]:
    """Cells that are read after each look: ``first``, then twice as many each time, up to ``most``.

    Args:
        first: at least ``fewest``.
        most: at most ``tissue``.
        fewest: cells of a look that tells how sure it is, unless it reads all that is left.
        tissue: cells of the slide.
    """
    totals = [min(first, most)]
    while totals[-1] < most:
        totals.append(min(2 * totals[-1], most))
    if most < tissue and len(totals) > 1 and totals[-1] - totals[-2] < fewest:
        totals.pop()  # what is left of the budget is too little for a look
    return totals


@dataclass(slots=True)
class Reading:
    """One slide while it is read.

    Attributes:
        view: the slide.
        map: what the model made of it before; what is drawn goes by its ``log_attention``.
        afresh: each look draws from all cells, and none counts on what an earlier one read (two levels, whose attention
            is known in opened regions only); else from those that are not read.
        known: features (D,) of the cells that were read.
        opened: log attention inside the regions that were looked into.
    """

    view: View
    map: AttentionMap
    afresh: bool
    known: dict[int, Tensor] = field(default_factory=dict)
    opened: dict[int, Tensor] = field(default_factory=dict)
    _looks: list[PlacedDraw] = field(default_factory=list)

    def looks(
        self,
        totals: Sequence[int],
        *,
        draw: Callable[..., list[PlacedDraw]],
        encode: Callable[[View, NDArray[np.int64]], Tensor],
    ) -> Iterator[tuple[PlacedDraw, Tensor]]:
        """Read on to each of these numbers of cells; after each look all that was read, as one draw and the features
        (N, D) of its cells."""
        tissue = int(self.view.tissue.sum())
        if self.afresh:
            variances = [0.0 if m == tissue else 1 / (m - n) for n, m in pairwise([0, *totals])]
        else:
            variances = foreseen_variances(self.map.log_attention, totals)
        for before, total in pairwise([0, *totals]):
            samples = self.left if total == tissue else total - before
            view, attention = self.rest()
            (drawn,) = draw([view], [attention], samples=samples)
            new = np.array(sorted(set(drawn.cells[0].tolist()) - self.known.keys()), np.int64)
            found = encode(self.view, new) if len(new) else ()
            self.known.update(zip(new.tolist(), found, strict=True))
            if not self.afresh:  # of the map of all cells: those that were read before say what they said
                drawn = replace(drawn, log_attention=self.map.log_attention[None], map=self.map)
            self._looks.append(drawn)
            drawn = self.together(look_shares(variances[: len(self._looks)]))
            yield drawn, torch.stack([self.known[cell] for cell in drawn.cells[0].tolist()])
            if not self.left:
                return

    @property
    def left(self) -> int:
        """Cells from which the next look draws."""
        return int(self.view.tissue.sum()) - (0 if self.afresh else len(self.known))

    def rest(self) -> tuple[View, AttentionMap]:
        """What the next look draws from."""
        if self.afresh or not self.known:
            return self.view, self.map
        tissue = self.view.tissue.copy()
        tissue.flat[list(self.known)] = False
        read = torch.tensor(list(self.known), device=self.map.log_attention.device)
        log_attention = self.map.log_attention.index_fill(0, read, -torch.inf)
        return replace(self.view, tissue=tissue), replace(self.map, log_attention=log_attention)

    def together(self, shares: Sequence[float]) -> PlacedDraw:
        """All looks as one draw."""
        first, *others = self._looks
        if not others:
            return first
        if self.afresh:  # each look has its own opened regions
            return side_by_side(self._looks, partial(combine, shares=shares, afresh=True))
        return replace(first, draw=combine([look.draw for look in self._looks], shares))


def side_by_side(parts: Sequence[PlacedDraw], join: Callable[[Sequence[Draw]], Draw]) -> PlacedDraw:
    """Draws of one slide, each from cells of its own, as one from all of these, which ``join`` makes of them."""
    ends = np.cumsum([0] + [part.places.shape[1] for part in parts])
    draws = [replace(one.draw, cells=one.draw.cells + int(at)) for one, at in zip(parts, ends, strict=False)]
    log_attention = torch.cat([part.log_attention for part in parts], 1)
    places = torch.cat([part.places for part in parts], 1)
    return replace(parts[0], draw=join(draws), log_attention=log_attention, places=places)
