"""A slide that a run predicted, of which more is read where somebody asks for it: what the model says of it by then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.model.look import Look, look_at
from pipeline.model.reading_more import ReadingMore, in_parts
from pipeline.model.slide_model import SlideModel
from pipeline.predict import SlidePrediction, attributed, prediction_of, watched
from stages.agreement import Agreement
from stages.slide.protocol import Slide

AT_A_TIME = 16
"""Patches that are encoded together: between two such lots it is told how far it is, and may be ended."""


@dataclass(frozen=True, slots=True)
class MoreRead:
    """What came of reading more of a slide.

    Attributes:
        prediction: as of a run, of all that was read by now.
        inside: how many patches were read of the place that was asked for, now.
        unread: how many of its cells are still unread.
        elsewhere: how many patches were read besides, now.
        confidence: of the prediction's intervals, jointly with those of all times before.
        new: (N,) which of the prediction's patches no draw of the run had.
    """

    prediction: SlidePrediction
    inside: int
    unread: int
    elsewhere: int
    confidence: float
    new: NDArray[np.bool_]


class MoreOfSlide:
    """One slide of a run, and all that was read of it since.

    Args:
        slide: opened as the run did.
        model: of the run.
        cells, boxes, features: of the patches that the run read: row-major indices (N,), level-0 boxes (N, 4) and
            features (N, D).
        seed: of the run.

    Raises:
        UsageError: the run read the slide otherwise than this version would, or everything of it.
        SlideError, NoTissueError: see `look_at`.
    """

    def __init__(
        self,
        slide: Slide,
        model: SlideModel,
        *,
        cells: NDArray[np.int64],
        boxes: NDArray[np.float64],
        features: NDArray[np.float32],
        seed: int,
    ) -> None:
        self._model, self._seed = model.unseen(slide.facts.fingerprint), seed
        if self._model.spec.exhaustive:
            raise UsageError("the model has read every patch of this slide: there is no more to read")
        self._seen: Look = look_at(slide, self._model)
        tissue = self._seen.tissue
        here = len(cells) > 0 and bool((cells >= 0).all()) and bool((cells < tissue.size).all())
        if not here or not tissue.flat[cells].all() or np.abs(self._boxes(cells) - boxes).max() > 1:
            raise UsageError(
                "this version lays the slide's patches otherwise than the one that made the run: run the same "
                "`saccade run` again"
            )
        self._agreement = Agreement(self._seen.thumbnail)
        self._view = watched(self._seen, self._agreement)
        known = dict(zip(cells.tolist(), torch.from_numpy(features).to(self._model.drawing_device), strict=True))
        with torch.no_grad():
            attention = self._model.attend(self._view)
        self._reading = ReadingMore(self._model, self._view, attention, known)
        self._of_run = frozenset(known)

    def _boxes(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._seen.reader.boxes_level0(cells)

    def read(self, box: Sequence[float], *, most: int, told: Callable[[int, int], None]) -> MoreRead:
        """Read the place below a box whole, or as many of its patches as may be, and as many elsewhere as the model
        reads of a slide: see `pipeline.model.reading_more`.

        Args:
            box: x, y, width, height in level-0 pixels; the cells that it touches are meant.
            most: patches of the place to read at most.
            told: before each lot of patches, how many of how many are read; what it raises ends the reading, and
                nothing has changed then.

        Raises:
            UsageError: there is no unread tissue below the box.
            SlideError: it cannot be read.
        """
        place = self._below(box)
        asked = self._reading.unread(place)
        if not asked.any():
            there = (place & self._seen.tissue).any()
            raise UsageError("all the tissue there was read" if there else "there is no tissue there")
        before = set(self._reading.known)
        sampled = self._reading.read(
            place,
            most=most,
            elsewhere=self._model.spec.samples,
            generator=self._seen.generator(self._seed, self._model.drawing_device, after=self._reading.times + 1),
            encode=in_parts(self._model.encode, AT_A_TIME, told),
        )
        fresh = np.array(sorted(set(self._reading.known) - before), np.int64)
        inside = int(asked.flat[fresh].sum())
        times = self._reading.times
        return MoreRead(
            prediction_of(
                self._seen,
                sampled,
                attributed(sampled, self._view, self._model),
                self._model,
                decision=None,
                score=None,
                warnings=tuple(self._agreement.warnings),
            ),
            inside,
            int(self._reading.unread(place).sum()),
            len(fresh) - inside,
            1 - 0.05 / (times * (times + 1)),
            np.array([cell not in self._of_run for cell in sampled.cells.tolist()], bool),
        )

    def _below(self, box: Sequence[float]) -> NDArray[np.bool_]:
        """The cells (rows, columns) that a box touches."""
        cells = self._seen.cells
        x, y, width, height = box
        place = np.zeros(cells.shape, bool)
        ends = []
        for at, length, start, scale, many in (
            (y, height, cells.y, cells.scale_y, cells.height),
            (x, width, cells.x, cells.scale_x, cells.width),
        ):
            first = int(np.clip(np.floor((at - start) / scale), 0, many))
            last = int(np.clip(np.ceil((at + length - start) / scale), 0, many))
            ends.append(slice(first, last))
        place[ends[0], ends[1]] = True
        return place
