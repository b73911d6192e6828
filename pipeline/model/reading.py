"""What a model reads of slides, as tensors on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from dask.base import is_dask_collection
from dask.threaded import get as on_threads  # by its name dask would import distributed to find it
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import is_exhaustion, reason_of
from pipeline.model.joint import JointReader, PartError, put_together
from pipeline.model.stack import Cells
from pipeline.model.values import View
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
    pieces = [(place, *one) for place, (read, cells) in enumerate(asked) for one in _pieces(read, cells.cpu().numpy())]
    lazy = [_as_read(piece[3]) for piece in pieces]
    try:
        pixels = _computed(lazy)
    except Exception as exc:
        if is_exhaustion(exc):
            raise
        pixels = _read_alone([(place, part, patches) for place, part, _, patches in pieces])
    found: dict[int, list[tuple[Cells, NDArray[Any]]]] = {}
    for (place, _, places, _), read_now in zip(pieces, pixels, strict=True):
        found.setdefault(place, []).append((places, np.asarray(read_now, np.uint8)))
    whole = (one[0][1] if len(one) == 1 else put_together(len(asked[i][1]), one) for i, one in found.items())
    return [torch.from_numpy(one).to(device) for one in whole]


def _pieces(read: Callable[[Cells], Any] | None, cells: Cells) -> list[tuple[View | None, Cells, Any]]:
    """What is read of each slide of a patient, and which it is; of one slide all."""
    if isinstance(read, JointReader) and len(cells):
        return list(read.pieces(cells))
    return [(None, np.arange(len(cells)), () if read is None or not len(cells) else read(cells))]


@contextmanager
def blaming(view: View, part: View) -> Iterator[None]:
    """Say of what fails for a patient's slide that it does for that slide."""
    try:
        yield
    except UnreadError as exc:
        if part is view:
            raise
        raise UnreadError({0: PartError(part, next(iter(exc.reasons.values())))}) from exc


def of_parts(view: View, act: Callable[[View], Result]) -> list[Result]:
    """What ``act``, which reads of one slide, makes of each of a view's."""
    found = []
    for part in view.each:
        with blaming(view, part):
            found.append(act(part))
    return found


def by_part(view: View, cells: Cells, act: Callable[[View, Cells], Tensor]) -> Tensor:
    """What ``act`` makes of cells (M,) of one slide, (M, ...), for those of all of a view's, in their order."""
    if not view.parts:
        return act(view, cells)
    out: Tensor | None = None
    for i, places, own in view.stack.split(cells):
        with blaming(view, view.parts[i]):
            found = act(view.parts[i], own)
        out = found.new_empty((len(cells), *found.shape[1:])) if out is None else out
        out[torch.from_numpy(places).to(out.device)] = found
    assert out is not None, "no cells"
    return out


def _computed(lazy: Sequence[Any]) -> list[Any]:
    """What lazy values of any kinds come to, computed together, in their order; what is real stays as it is.

    `dask.compute` would sort them by kind (dask 2026.8.0): the pixels of one slide would be another's.
    """
    graph: dict[Any, Any] = {}
    waiting = [is_dask_collection(one) for one in lazy]
    collections = [one for one, waits in zip(lazy, waiting, strict=True) if waits]
    for one in collections:
        graph.update(one.__dask_graph__())
    results = iter(on_threads(graph, [one.__dask_keys__() for one in collections]) if collections else ())
    found = []
    for one, waits in zip(lazy, waiting, strict=True):
        finish, more = one.__dask_postcompute__() if waits else (None, ())
        found.append(one if finish is None else finish(next(results), *more))
    return found


def _as_read(lazy: Any) -> Any:
    """The one chunk of an array, which dask would copy in case that it is another's: what was read is nobody's."""
    if not hasattr(type(lazy), "npartitions") or lazy.npartitions != 1:
        return lazy
    return lazy.to_delayed(optimize_graph=False).item()


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


def _read_alone(asked: Sequence[tuple[int, View | None, Any]]) -> list[Any]:
    """One after the other, which tells whose fault it is."""
    pixels, reasons = list[Any](), dict[int, Exception]()
    for place, part, one in asked:
        try:
            pixels.extend(_computed([one]))
        except Exception as exc:
            if is_exhaustion(exc):
                raise
            reasons[place] = exc if part is None else PartError(part, exc)
    if reasons:
        raise UnreadError(reasons) from next(iter(reasons.values()))
    return pixels


def image(rgb: NDArray[np.uint8] | Tensor, device: torch.device) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) in 0 to 1."""
    return stored(rgb, device) / 255


def stored(rgb: NDArray[np.uint8] | Tensor, device: torch.device) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) uint8: a quarter of `image`'s memory, or none."""
    return torch.as_tensor(rgb).to(device).movedim(-1, -3)


def in_full(device: torch.device) -> AbstractContextManager[Any]:
    """Compute in full precision, also where the encoder learns in less: attention, and what patches add up to."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()
