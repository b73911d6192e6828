"""Reading more of one slide where somebody asks for it: what was read counts, and all that is left is drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.reading_on import side_by_side
from pipeline.model.regions import by_region
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import AttentionMap, PlacedDraw, Sampled, View
from stages.sampling.schemes import DEFAULT
from stages.sampling.strata import stratified

Encode = Callable[[View, NDArray[np.int64]], Tensor]


@dataclass(slots=True)
class ReadingMore:
    """One slide of which more is read each time that somebody asks.

    After each time the estimate is that of `stages.sampling.strata`: all that was read counts as itself, and what was
    not is drawn anew, in the place that was asked for and elsewhere. So it is unbiased whatever was asked for, and why.
    With two levels, where attention is known in opened regions only, what counts as itself are regions that were read
    whole. Intervals after the k-th time have confidence ``1 - 0.05 / (k (k + 1))``: together, over all times, .95.

    Attributes:
        model: which draws.
        view: the slide.
        map: what the model makes of it before it reads patches.
        known: features (D,) of the cells that were read.
        opened: with two levels, log attention inside the regions that were looked into.
        times: how often more was asked for.
    """

    model: SlideModel
    view: View
    map: AttentionMap
    known: dict[int, Tensor]
    opened: dict[int, Tensor] = field(default_factory=dict)
    times: int = 0
    _sure: NDArray[np.bool_] = field(init=False)  # what counts as itself
    _chosen: NDArray[np.bool_] = field(init=False)  # and of this what no draw has chosen, but somebody

    def __post_init__(self) -> None:
        self._sure = np.zeros(self.view.tissue.shape, bool)
        self._chosen = self._sure.copy()
        if self.model.inner is None:
            self._sure.flat[list(self.known)] = True

    def unread(self, place: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The cells that reading a place (rows, columns) is about: its tissue that does not count as read; with two
        levels that of whole regions."""
        return self._whole(place) & self.view.tissue & ~self._sure

    @torch.no_grad()
    def read(
        self,
        place: NDArray[np.bool_],
        *,
        most: int,
        elsewhere: int,
        generator: torch.Generator,
        encode: Encode | None = None,
    ) -> Sampled:
        """Read a place whole, or as many of its cells as may be, and some elsewhere; nothing is changed where it fails.

        Args:
            place: (rows, columns), the cells that are asked for.
            most: cells of the place to read at most; one that has more is drawn from.
            elsewhere: cells to draw from all that is unread besides.
            generator: on the model's `drawing_device`.
            encode: in place of the model's own, which it may call for some cells at a time.
        """
        model, fewest = self.model, self.model.spec.fewest
        inside = self.unread(place)
        outside = self.view.tissue & ~self._sure & ~inside
        whole = int(inside.sum()) <= max(most, fewest)
        every = self.view.tissue.size
        before = [(self._chosen, every), (self._sure & ~self._chosen, every)]
        now = [(inside, max(most, fewest)), (outside, max(elsewhere, fewest))]
        chosen, read, anew, rest = [self._drawn(*one, generator) for one in (*before, *now)]
        drawn = self._together(chosen, read, anew, rest)
        chance = self._together(read, rest) if whole else self._together(read, anew, rest)
        assert drawn is not None, "a slide has tissue"
        new = np.array(sorted(set(drawn.cells[0].tolist()) - self.known.keys()), np.int64)
        known = dict(self.known)
        if len(new):
            found = (encode or model.encode)(self.view, new).to(self.map.log_attention.device)
            known.update(zip(new.tolist(), found, strict=True))
        features = torch.stack([known[cell] for cell in drawn.cells[0].tolist()])
        times = self.times + 1
        prediction = model.judge(drawn, features, confidence=1 - 0.05 / (times * (times + 1)), chance=chance)
        told = model.conclude(self.view, self.map, drawn, features, prediction, known=known, opened=self.opened)
        self.known, self.times = known, times
        if whole:
            self._chosen |= inside
            self._sure |= inside
        if model.inner is None:
            self._sure.flat[list(known)] = True
        return told

    def _together(self, *parts: PlacedDraw | None) -> PlacedDraw | None:
        """Draws of strata as one; None where there is nothing in any."""
        there = [part for part in parts if part is not None]
        return replace(side_by_side(there, stratified), map=self.map) if there else None

    def _drawn(self, cells: NDArray[np.bool_], samples: int, generator: torch.Generator) -> PlacedDraw | None:
        """A draw from some cells (rows, columns) by themselves; None where there are none."""
        if not cells.any():
            return None
        units = torch.from_numpy(cells).to(self.map.log_attention.device)
        if self.model.inner is not None:
            units = by_region(units, self.model.spec.region_cells).any(2)
        log_attention = self.map.log_attention.masked_fill(~units.flatten(), -torch.inf)
        (drawn,) = self.model.draw(
            [replace(self.view, tissue=cells)],
            [replace(self.map, log_attention=log_attention)],
            samples=samples,
            generator=generator,
            scheme=DEFAULT,
            opened=[self.opened],
        )
        return drawn

    def _whole(self, place: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The place, with two levels as whole regions."""
        if self.model.inner is None:
            return place
        side = self.model.spec.region_cells
        rows, columns = (n // side for n in place.shape)
        touched = place.reshape(rows, side, columns, side).any((1, 3))
        return touched.repeat(side, 0).repeat(side, 1)


def in_parts(encode: Encode, size: int, told: Callable[[int, int], None]) -> Encode:
    """The same encoder, some cells at a time; before each, ``told`` of how many of how many are done, and it may raise.

    Args:
        encode: view, cells (N,) -> features (N, D).
        size: cells at a time.
        told: see above.
    """

    def parts(view: View, cells: NDArray[np.int64]) -> Iterator[Tensor]:
        for begin in range(0, len(cells), size):
            told(begin, len(cells))
            yield encode(view, cells[begin : begin + size])
        told(len(cells), len(cells))

    return lambda view, cells: torch.cat(list(parts(view, cells)))
