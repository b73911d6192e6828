"""More of a run's slides, read when somebody asks for it: one reading at a time, in a thread; the run stays as it is.

PyTorch and the run's model are loaded when the first is asked for, and need not be there to look.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import UsageError, reason_of
from pipeline.model.header import find_model, model_digest, read_known
from pipeline.output.slide_folder import read_commit
from pipeline.run.keys import RESULTS_VERSION
from pipeline.view.run_folder import AGAIN, RunFolder, SlideRow, inner
from pipeline.view.samples import Samples, read_features, read_samples
from stages.install import from_folder
from stages.slide.protocol import Slide

if TYPE_CHECKING:  # which compute
    from pipeline.model.slide_model import SlideModel
    from pipeline.read_more import MoreOfSlide, MoreRead

MOST = 4096
"""Patches of a place that may be read at a time."""
USUAL = 256
"""Patches of a place that are read at a time unless somebody says otherwise."""
SLIDES = 2
"""Slides of which what was read since is kept; of others that is forgotten, the longest unasked first."""

Box = tuple[float, float, float, float]
"""x, y, width and height in level-0 pixels."""


class EndedError(Exception):
    """Somebody ended the reading."""


@dataclass(slots=True)
class Job:
    """A reading that goes on, or how it ended.

    Attributes:
        slide: of which.
        doing: what it is at.
        done, total: patches that are read, of how many; 0 before that is known.
        ended: whether somebody ended it.
        error: why nothing came of it; "": nothing is wrong.
    """

    slide: SlideRow
    doing: str = "loading the model"
    done: int = 0
    total: int = 0
    ended: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Since:
    """What was read of a slide since the run.

    Attributes:
        slide: how more of it is read.
        found: what came of the last time; None before.
        boxes: the places that were asked for.
    """

    slide: MoreOfSlide
    found: MoreRead | None = None
    boxes: tuple[Box, ...] = ()

    @property
    def samples(self) -> Samples | None:
        """All patches that were read, as those of a run are told; None before."""
        if self.found is None:
            return None
        told = self.found.prediction
        facts = told.slide.facts
        return Samples(
            boxes=told.patch_boxes_level0,
            cells=told.patch_cells,
            attention=np.asarray(told.patch_attention, np.float64),
            weights=told.patch_weights,
            names=told.task.statistics,
            contributions=told.attribution.patches,
            half_widths=told.attribution.patch_half_widths,
            unit=told.task.unit,
            size=(facts.levels[0].width, facts.levels[0].height),
            bounds=facts.bounds,
            mpp=facts.require_mpp(),
        )


@dataclass(slots=True)
class More:
    """What is read of a run's slides when somebody asks for it.

    Attributes:
        run: whose slides.
        opened: opens the slide of a result; raises `SlideError` where it cannot be shown.
        model: where the run's model lies by now; None: where the run had it.
    """

    run: RunFolder
    opened: Callable[[SlideRow], Slide]
    model: Path | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="more"))
    _job: Job | None = None
    _since: OrderedDict[int, Since] = field(default_factory=OrderedDict)
    _loaded: SlideModel | None = None

    def why_not(self, slide: SlideRow) -> str | None:
        """Why no more of a slide can be read here, with the remedy, as far as that is known before; None: it can."""
        commit = read_commit(slide.folder) if slide.folder is not None else None
        made = inner(commit, "made_of") if commit is not None else {}
        if self.run.run.get("unit") == "patient":
            return "the model predicts patients from all of their slides: more of one alone is not read"
        if made.get("version") != RESULTS_VERSION:
            return f"another version of Saccade made this result, which may read slides otherwise: {AGAIN}"
        try:
            path = self._path()
            if _digest(path, os.stat(path).st_mtime_ns) != made.get("model"):
                return f"{path} is another model than the one that predicted this slide: name that with --model"
            if read_known(path, encoder_weights=self._weights()).spec.exhaustive:
                return "the model has read every patch of this slide: there is no more to read"
        except (UsageError, OSError) as exc:
            return f"{reason_of(exc)}; name the run's model with --model"
        if find_spec("torch") is None:
            return f"to read more is to compute, which needs PyTorch: {from_folder()}"
        return None

    def begin(self, slide: SlideRow, box: Box, most: int) -> None:
        """Start to read a place.

        Args:
            slide: of which.
            box: of the place.
            most: patches of it to read at most, `MOST` at most.

        Raises:
            UsageError: it cannot be, or something is being read.
        """
        why = self.why_not(slide)
        if why is not None:
            raise UsageError(why)
        with self._lock:
            if self.job is not None and not self.job.error:
                raise UsageError(f"more of {self.job.slide.name} is being read: wait for it, or end that")
            self._job = Job(slide)
            self._thread.submit(self._work, self._job, box, min(most, MOST))

    @property
    def job(self) -> Job | None:
        """The reading that goes on, or the last one if nothing came of it."""
        return self._job

    def since(self, slide: SlideRow) -> Since | None:
        """What was read of a slide since the run; None: nothing."""
        found = self._since.get(slide.number)
        return found if found is not None and found.found is not None else None

    def stop(self, slide: SlideRow) -> None:
        """End the reading of a slide that goes on; else forget what was read of it since the run."""
        with self._lock:
            if self._job is not None and self._job.slide.number == slide.number:
                self._job.ended = True
                if self._job.error:
                    self._job = None
            else:
                self._since.pop(slide.number, None)

    def close(self) -> None:
        """End what goes on."""
        with self._lock:
            if self._job is not None:
                self._job.ended = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _work(self, job: Job, box: Box, most: int) -> None:
        def told(done: int, total: int) -> None:
            if job.ended:
                raise EndedError
            job.doing, job.done, job.total = "reading", done, total

        try:
            since = self._since.get(job.slide.number) or Since(self._begun(job))
            self._keep(job.slide, since)
            told(0, 0)
            found = since.slide.read(box, most=most, told=told)
        except EndedError:
            with self._lock:
                self._job = None
        except Exception as exc:  # whatever a slide or a model raises is told in one line
            job.error = reason_of(exc)
        else:
            self._keep(job.slide, Since(since.slide, found, (*since.boxes, box)))
            with self._lock:
                self._job = None

    def _keep(self, slide: SlideRow, since: Since) -> None:
        with self._lock:
            self._since[slide.number] = since
            self._since.move_to_end(slide.number)
            while len(self._since) > SLIDES:
                self._since.popitem(last=False)

    def _begun(self, job: Job) -> MoreOfSlide:
        from pipeline.model.build import keep_features
        from pipeline.model.checkpoint import load_model
        from pipeline.read_more import MoreOfSlide

        settings = inner(self.run.run, "settings")
        if self._loaded is None:
            model = load_model(self._path(), device="auto", encoder_weights=self._weights())
            features = settings.get("features")
            self._loaded = keep_features(model, Path(features) if features else None)
        job.doing = "looking at the slide"
        assert job.slide.folder is not None
        bag = job.slide.folder / "samples.h5"
        try:
            samples, features_read = read_samples(bag), read_features(bag)
        except (OSError, KeyError, ValueError, TypeError) as exc:
            raise UsageError(f"the patches that the run read (samples.h5) are missing or damaged: {AGAIN}") from exc
        return MoreOfSlide(
            self.opened(job.slide),
            self._loaded,
            cells=samples.cells,
            boxes=samples.boxes,
            features=features_read,
            seed=int(settings.get("seed") or 0),
        )

    def _path(self) -> Path:
        said = inner(self.run.run, "settings").get("model")
        if self.model is None and not said:
            raise UsageError("the run does not say where its model is")
        path = find_model(self.model if self.model is not None else Path(str(said)))
        if not path.is_file():
            raise UsageError(f"the run's model is not at {path} any more")
        return path

    def _weights(self) -> Path | None:
        said = inner(self.run.run, "settings").get("encoder_weights")
        return Path(str(said)) if said else None


@lru_cache(maxsize=4)
def _digest(path: Path, written: int) -> str:
    """Of a model whose file was written then."""
    return model_digest(path)
