"""What a model reads of slides, as tensors on its device, and the walks that it draws along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar

import dask
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import is_exhaustion, reason_of
from stages.sampling.walk import hilbert_order
from stages.slide.facts import SlideError

Asked = TypeVar("Asked")
Result = TypeVar("Result")


class UnreadError(SlideError):
    """Some of the slides that were to be read together cannot be read.

    Attributes:
        reasons: what came of each of them, by its place among those that were asked for.
    """

    def __init__(self, reasons: Mapping[int, Exception]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return reason_of(next(iter(self.reasons.values())))


def read_together(
    asked: Sequence[tuple[Callable[[NDArray[np.int64]], Any] | None, Tensor]], device: torch.device
) -> list[Tensor]:
    """Pixels (N, P, P, 3) uint8 of the cells that are asked of each reader, by dask on threads; empty where none are.

    Raises:
        UnreadError: some of them fail, twice and alone; it says which.
    """
    lazy = [() if read is None or not len(cells) else _as_read(read(cells.cpu().numpy())) for read, cells in asked]
    try:
        pixels = dask.compute(*lazy, scheduler="threads")
    except Exception as exc:
        if is_exhaustion(exc):
            raise
        pixels = _read_alone(lazy)
    return [torch.from_numpy(np.asarray(p, np.uint8)).to(device) for p in pixels]


def _as_read(lazy: Any) -> Any:
    """The one chunk of an array, which dask would copy in case that it is another's: what was read is nobody's."""
    return lazy.to_delayed(optimize_graph=False).item() if getattr(lazy, "npartitions", 0) == 1 else lazy


def of_each(asked: Iterable[Asked], act: Callable[[Asked], Result]) -> list[Result]:
    """What ``act``, which reads of one slide, makes of each.

    Raises:
        UnreadError: some of them fail; it says which of all.
    """
    found, reasons = [], {}
    for place, one in enumerate(asked):
        try:
            found.append(act(one))
        except UnreadError as exc:
            reasons[place] = next(iter(exc.reasons.values()))
    if reasons:
        raise UnreadError(reasons) from next(iter(reasons.values()))
    return found


def _read_alone(lazy: Sequence[Any]) -> tuple[Any, ...]:
    """One after the other, which tells whose fault it is."""
    pixels, reasons = [], {}
    for place, one in enumerate(lazy):
        try:
            pixels.extend(dask.compute(one, scheduler="threads"))
        except Exception as exc:
            if is_exhaustion(exc):
                raise
            reasons[place] = exc
    if reasons:
        raise UnreadError(reasons) from next(iter(reasons.values()))
    return tuple(pixels)


def image(rgb: NDArray[np.uint8] | Tensor, device: torch.device) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) in 0 to 1."""
    return stored(rgb, device) / 255


def stored(rgb: NDArray[np.uint8] | Tensor, device: torch.device) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) uint8: a quarter of `image`'s memory, or none."""
    return torch.as_tensor(rgb).to(device).movedim(-1, -3)


def in_full(device: torch.device) -> AbstractContextManager[Any]:
    """Compute in full precision, also where the encoder learns in less: attention, and what patches add up to."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


@lru_cache(maxsize=32)
def walk(rows: int, columns: int) -> Tensor:
    """`hilbert_order` of a grid; slides of a batch and the steps of training ask for the same ones."""
    return hilbert_order(rows, columns)
