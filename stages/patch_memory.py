"""Patches that were read, kept in memory within bounds: training draws the same cells again, the more so the more its
attention settles."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dask.delayed import Delayed

Reader = Callable[[NDArray[np.int64]], Any]
"""Row-major cell indices (N,) -> lazy or real patches (N, P, P, 3) uint8."""


class PatchMemory:
    """Patches by their slide and cell, those that were drawn last; safe to use from several threads.

    Args:
        limit: bytes that they may take.

    Attributes:
        nbytes: that they take.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self.nbytes = limit, 0
        self._kept: OrderedDict[tuple[Hashable, int], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, slide: Hashable, reader: Reader, cells: NDArray[np.int64]) -> Delayed:
        """Lazy patches (N, P, P, 3) of cells (N,), of which the reader is asked for those that are not kept.

        Args:
            slide: whose patches these are, by a name that no other has.
            reader: reads its patches.
            cells: row-major indices.
        """
        from dask import delayed

        with self._lock:
            kept = {cell: self._kept[slide, cell] for cell in set(cells.tolist()) if (slide, cell) in self._kept}
            for cell in kept:
                self._kept.move_to_end((slide, cell))
        missing = np.array([cell for cell in dict.fromkeys(cells.tolist()) if cell not in kept], np.int64)

        def put(read: NDArray[np.uint8] | tuple[()]) -> NDArray[np.uint8]:
            fresh = dict(zip(missing.tolist(), read, strict=True))
            self._keep(slide, fresh)
            known = kept | fresh
            return np.stack([known[cell] for cell in cells.tolist()])

        found: Delayed = delayed(put, pure=False)(reader(missing) if len(missing) else ())
        return found

    def _keep(self, slide: Hashable, fresh: dict[int, NDArray[np.uint8]]) -> None:
        with self._lock:
            for cell, patch in fresh.items():
                if (slide, cell) not in self._kept and patch.nbytes <= self._limit:
                    self._kept[slide, cell] = patch.copy()  # a view would keep all that was read with it
                    self.nbytes += patch.nbytes
            while self.nbytes > self._limit:
                self.nbytes -= self._kept.popitem(last=False)[1].nbytes
