"""Patches that were read, kept in memory within bounds: training draws the same cells again, the more so the more its
attention settles."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.slide.facts import SlideError

if TYPE_CHECKING:
    from dask.delayed import Delayed

Reader = Callable[[NDArray[np.int64]], Any]
"""Row-major cell indices (N,) -> lazy or real patches (N, P, P, 3) uint8."""


RECENT = 2
"""Times that a slide is asked for, within which what was drawn of it makes room for nothing else.

A cohort that does not fit comes round once an epoch: were what was drawn last always kept, all of it would go before
it comes again.
"""

WHOLE = 10
"""Times what is asked for, up to which all tissue of a slide is read at once: within as many epochs most of it is
drawn, and in one go a tile is decoded once, not once for each draw that touches it."""


class PatchMemory:
    """Patches by their slide and cell, as many as there is room for; safe to use from several threads.

    Where there is no room, the one that was drawn longest ago goes, unless its slide was asked for less than `RECENT`
    times since: then what is new is not kept. Of a slide that is asked for the first time all tissue is read and kept,
    where it is no more than `WHOLE` times what is asked for and there is room.

    Args:
        limit: bytes that they may take.

    Attributes:
        nbytes: that they take.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self.nbytes = limit, 0
        self._kept: OrderedDict[tuple[Hashable, int], tuple[NDArray[np.uint8], int]] = OrderedDict()
        self._asked: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def read(
        self, slide: Hashable, reader: Reader, tissue: NDArray[np.bool_], cells: NDArray[np.int64]
    ) -> Delayed | NDArray[np.uint8]:
        """Patches (N, P, P, 3) of cells (N,): real where all are kept, else lazy: the reader is asked for the others.

        Args:
            slide: whose patches these are, by a name that no other has.
            reader: reads its patches.
            tissue: which cells may be asked for, (rows, columns).
            cells: row-major indices.
        """
        from dask import delayed

        kept: dict[int, NDArray[np.uint8]] = {}
        with self._lock:
            self._asked[slide] = now = self._asked[slide] + 1
            for cell in set(cells.tolist()):
                if (slide, cell) in self._kept:
                    kept[cell], _ = self._kept[slide, cell]
                    self._kept[slide, cell] = kept[cell], now
                    self._kept.move_to_end((slide, cell))
        missing = np.array([cell for cell in dict.fromkeys(cells.tolist()) if cell not in kept], np.int64)

        def put(asked: NDArray[np.int64], read: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
            fresh = dict(zip(asked.tolist(), read, strict=True))
            self._keep(slide, fresh, now)
            known = kept | fresh
            return np.stack([known[cell] for cell in cells.tolist()])

        if not len(missing):
            return put(missing, ())
        if now == 1 and tissue.sum() <= WHOLE * len(cells):
            every = np.flatnonzero(tissue)
            whole = reader(every)
            if self.nbytes + whole.nbytes <= self._limit:

                def put_whole() -> NDArray[np.uint8]:
                    try:
                        return put(every, _read(whole))
                    except SlideError:  # it may be where nothing was asked for
                        return put(missing, _read(reader(missing)))

                in_one_go: Delayed = delayed(put_whole, pure=False)()
                return in_one_go
        found: Delayed = delayed(put, pure=False)(missing, reader(missing))
        return found

    def _keep(self, slide: Hashable, fresh: dict[int, NDArray[np.uint8]], now: int) -> None:
        """Keep patches that were asked for at a slide's time ``now``, as far as there is room."""
        with self._lock:
            for cell, patch in fresh.items():
                if (slide, cell) not in self._kept and self._has_room(patch.nbytes):
                    self._kept[slide, cell] = patch.copy(), now  # a view would keep all that was read with it
                    self.nbytes += patch.nbytes

    def _has_room(self, nbytes: int) -> bool:
        """Whether so many bytes more may be taken, once what was not drawn lately is gone."""
        while self._kept and self.nbytes + nbytes > self._limit:
            (slide, cell), (patch, drawn) = next(iter(self._kept.items()))
            if self._asked[slide] - drawn < RECENT:
                return False
            del self._kept[slide, cell]
            self.nbytes -= patch.nbytes
        return self.nbytes + nbytes <= self._limit


def _read(patches: Any) -> NDArray[np.uint8]:
    """Lazy or real patches as real ones, on this thread: others read other slides."""
    import dask

    (read,) = dask.compute(patches, scheduler="sync")
    return np.asarray(read, np.uint8)
