"""Patches of coming steps, read while the steps before them compute.

What step t + k reads is drawn at step t, from the attention that the model has then, and always k steps before, however
fast reading is: the same seed draws the same. Attention has moved on when the patches are used; their weights are those
of the draw that was made, and the attention that they are multiplied by is the present one, so that value and gradients
stay unbiased (`stages.sampling.estimate`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.model.reading import UnreadError, read_together
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import View
from pipeline.train.slides import TrainingSlides
from stages.sampling.designs import Draw


@dataclass(frozen=True, slots=True)
class Coming:
    """Draws (1, N) of a batch's slides, and their patches once they are read: of each slide, or why not."""

    slides: list[int]
    draws: list[Draw]
    patches: Future[list[Tensor | Exception]]


class ReadAhead:
    """Draws of one level, made some steps before their patches are used, which are read meanwhile on another thread.

    Args:
        model: draws by the attention that it has when it is asked.
        slides: those that cannot be looked at are left out.
    """

    def __init__(self, model: SlideModel, slides: TrainingSlides) -> None:
        self._model, self._slides = model, slides
        self._coming: dict[tuple[int, int], Coming | None] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read ahead")  # which reads on dask's threads

    def begin(
        self,
        step: tuple[int, int],
        batch: Sequence[int],
        *,
        samples: int,
        generators: Callable[[Sequence[int]], Sequence[torch.Generator]],
    ) -> None:
        """Draw what a step (epoch, number) will use, and begin to read it; nothing where that is done.

        Args:
            step: epoch and number.
            batch: its slides.
            samples: cells of each.
            generators: gives those of slides.
        """
        if step in self._coming:
            return

        @torch.no_grad()
        def act(kept: list[int], views: list[View]) -> Coming:
            maps = self._model.attend_all(views)
            placed = self._model.draw(views, maps, samples=samples, generator=generators(kept), judged=False)
            cells = [one.cells[0].cpu() for one in placed]
            return Coming(kept, [one.draw for one in placed], self._reader.submit(_read, views, cells))

        found = self._slides.attempt(batch, act)
        self._coming[step] = None if found is None else found[1]

    def take(self, step: tuple[int, int], kept: Sequence[int], views: Sequence[View]) -> tuple[list[View], list[Draw]]:
        """Those slides as views whose patches are in memory, and their draws; waits until they are read.

        Raises:
            UnreadError: some of them could not be read; it says which.
        """
        coming = self._coming[step]
        assert coming is not None
        read = coming.patches.result()
        places = [coming.slides.index(i) for i in kept]
        failed = {at: one for at, place in enumerate(places) if isinstance(one := read[place], Exception)}
        if failed:
            raise UnreadError(failed) from next(iter(failed.values()))
        return [_in_memory(view, read[place]) for view, place in zip(views, places, strict=True)], [
            coming.draws[place] for place in places
        ]

    def done(self, step: tuple[int, int]) -> None:
        """Let go of a step."""
        self._coming.pop(step, None)

    def close(self) -> None:
        """Read nothing more."""
        self._reader.shutdown(cancel_futures=True)


def _in_memory(view: View, patches: Tensor | Exception) -> View:
    """A view whose drawn patches are read."""
    assert isinstance(patches, Tensor)
    pixels = patches.numpy()
    return replace(view, patches=lambda cells: pixels)


def _read(views: Sequence[View], cells: Sequence[Tensor]) -> list[Tensor | Exception]:
    """Patches (N, P, P, 3) of the cells (N,) of each slide, or why they cannot be read."""
    found: dict[int, Tensor | Exception] = {}
    while left := [place for place in range(len(views)) if place not in found]:
        try:
            pixels = read_together([(views[place].patches, cells[place]) for place in left], torch.device("cpu"))
            found.update(zip(left, pixels, strict=True))
        except UnreadError as exc:
            found.update({left[place]: reason for place, reason in exc.reasons.items()})
    return [found[place] for place in range(len(views))]
