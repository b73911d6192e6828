"""The workers of a dask scheduler: which there are, which may be used and which are free."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.errors import UsageError
from pipeline.run.handshake import ANSWER_SECONDS, strangers
from pipeline.run.process import packed
from pipeline.run.remote import do

RESOURCE = "GPU"
"""What a worker has of it is how many jobs at a time may take a GPU there: ``dask worker --resources GPU=1``."""
TRIAL_SECONDS = 600.0
"""For a worker to show that it can do the work, once it has imported what it needs."""


class SchedulerGoneError(Exception):
    """It does not answer any more."""


@dataclass(frozen=True, slots=True)
class _Worker:
    """What a scheduler says of one.

    Attributes:
        threads: jobs that it does at a time.
        gpus: ... of them with a GPU.
        takes: whether it takes any now; not where it is paused or about to end.
    """

    threads: int
    gpus: int
    takes: bool


class Crew:
    """Workers, each of which is asked before it may be used; those that may not be are told of and left out.

    Attributes:
        there: all workers that the scheduler has.
        taken: keys of jobs that workers have taken up.
        on_trial: whether some have not yet shown that they can do the work, and may.
        usable: whether there are some that have.
    """

    def __init__(
        self,
        client: Any,
        *,
        device: str,
        trial: tuple[Callable[..., str | None], tuple[Any, ...]] | None,
        warn: Callable[[str], None],
    ) -> None:
        self._client, self._warn, self._device = client, warn, device
        self._trial = None if trial is None else packed(*trial)
        self.there: dict[str, _Worker] = {}
        self.taken: set[str] = set()
        self._usable: set[str] = set()
        self._refused: dict[str, str] = {}
        self._silent: set[str] = set()
        self._asking: Future[dict[str, str | None]] | None = None
        self._asked: list[str] = []
        self._opening = False
        self._trials: dict[str, str] = {}  # of jobs' keys, the worker
        self._futures: dict[str, Any] = {}  # which would be forgotten if nobody held them
        self._finished: SimpleQueue[Any] = SimpleQueue()
        self._topic = f"saccade-{os.urandom(16).hex()}"
        client.subscribe_topic(self._topic, lambda event: self.taken.add(event[1]))

    @property
    def on_trial(self) -> bool:
        asked = self._asking is not None and not self._silent.issuperset(self._asked)
        return asked or bool(self._trials)

    @property
    def usable(self) -> bool:
        return bool(self._usable)

    def open(self, wait: float, *, stop: threading.Event) -> None:
        """Wait until the workers that are there have been asked, and one at least can be used.

        Raises:
            UsageError: none has joined in so many seconds, or one cannot do the work.
        """
        self._opening = True
        until, told = time.monotonic() + wait, False
        while not stop.is_set():
            self.look()
            for _ in self.finished(0.05):
                pass
            if self._refused:
                raise UsageError(next(iter(self._refused.values())))
            late = time.monotonic() > until
            if self._usable and (late or not self.on_trial):
                break
            if late and not self.on_trial:
                raise UsageError(self._nobody(wait))
            if late and not told:
                self._warn(
                    f"no worker has shown within {wait:g} s that it can do the work: they are busy with other work, or "
                    "import from a slow disk; they are waited for"
                )
                told = True
            stop.wait(0.05 if self.on_trial else 0.2)
        self._opening = False

    def _nobody(self, wait: float) -> str:
        address = self._client.scheduler.address
        if not self.there:
            return (
                f"no worker has joined the scheduler {address} within {wait:g} s: "
                f"start one with `dask worker {address}`"
            )
        if self._silent & self.there.keys():
            return f"the workers at {address} do not answer within {wait:g} s: restart them"
        return (
            f"no worker of the scheduler {address} has a GPU to give: start those that have one with "
            f"`dask worker {address} --resources {RESOURCE}=1`, or use --device auto"
        )

    def why(self) -> str:
        """In brackets, why one that is there is not used; nothing where none is."""
        silent = " (those that are there do not answer)" if self._silent & self.there.keys() else ""
        return next((f" ({why})" for worker, why in self._refused.items() if worker in self.there), silent)

    def look(self) -> None:
        """See which workers there are, and ask those that are new.

        Raises:
            SchedulerGoneError: nothing can be heard.
            UsageError: the scheduler would not import our packages.
        """
        self._answered()
        try:
            told = self._client.sync(self._client.scheduler.identity, callback_timeout=ANSWER_SECONDS)
        except Exception as exc:  # whatever it is, nothing can be said to it
            raise SchedulerGoneError from exc
        self.there = {address: _worker(info) for address, info in told["workers"].items()}
        gone = self._trials.keys() - {key for key, worker in self._trials.items() if worker in self.there}
        for key in gone:
            del self._trials[key]
            self._futures.pop(key, None)
        self._usable &= self.there.keys()
        known = self._usable | self._refused.keys() | set(self._trials.values())
        new = sorted(worker for worker in self.there.keys() - known if self._slots(worker))
        if new and self._asking is None:
            self._asked, self._asking = new, _in_thread(strangers, self._client, new)

    def _answered(self) -> None:
        """Hear what those say that were asked, and put on trial who may be."""
        if self._asking is None or not self._asking.done():
            return
        asking, self._asking = self._asking, None
        try:
            found = asking.result()
        except UsageError:
            raise
        except Exception as exc:
            raise SchedulerGoneError from exc
        for worker in self._asked:
            why = found.get(worker, "")
            if why is None:  # it is asked again
                self._silent.add(worker)
                continue
            self._silent.discard(worker)
            if why:
                self._leave_out(worker, why)
            elif self._trial is None:
                self._usable.add(worker)
            elif worker in self.there:
                future = self.submit(worker, self._trial, TRIAL_SECONDS)
                self._trials[future.key] = worker

    def _leave_out(self, worker: str, why: str) -> None:
        self._refused[worker] = why
        if not self._opening:  # then it is an error
            self._warn(f"{why}; it is not used")

    def _slots(self, worker: str) -> int:
        """Jobs that a worker does at a time."""
        what = self.there[worker]
        if self._device.startswith("cuda"):
            return min(what.gpus, what.threads)
        return what.threads if self._device == "cpu" or not what.gpus else min(what.gpus, what.threads)

    def free(self, at_work: Iterable[str]) -> Iterator[str]:
        """Each worker as often as it could take a job more, those with the fewest first.

        Args:
            at_work: where jobs are, once for each.
        """
        busy = Counter(at_work)
        turns = [
            (turn, worker)
            for worker in self._usable
            if self.there[worker].takes
            for turn in range(busy[worker], self._slots(worker))
        ]
        return (worker for _, worker in sorted(turns))

    def idle(self) -> list[str]:
        """Workers that have nothing to do, for whomever.

        Raises:
            SchedulerGoneError: nothing can be heard.
        """
        try:
            busy = self._client.sync(self._client.scheduler.processing, workers=None, callback_timeout=ANSWER_SECONDS)
        except Exception as exc:
            raise SchedulerGoneError from exc
        return [worker for worker in self.free(()) if not busy.get(worker)]

    def submit(self, worker: str, job: bytes, limit: float) -> Any:
        """Hand a job to a worker, and return its future.

        Raises:
            SchedulerGoneError: it cannot be handed on.
        """
        name = f"saccade-{os.urandom(16).hex()}"
        what = self.there[worker]
        gpu = what.gpus and self._device != "cpu"
        try:
            future = self._client.submit(
                do,
                job,
                limit,
                topic=self._topic,
                name=name,
                key=name,
                pure=False,
                workers=[worker],  # it was asked; and so it is known what is lost with whom
                resources={RESOURCE: 1} if gpu else None,
            )
            self._futures[name] = future
            future.add_done_callback(self._finished.put)
        except Exception as exc:
            raise SchedulerGoneError from exc
        return future

    def finished(self, seconds: float) -> Iterator[Any]:
        """Futures of jobs that ended within so many seconds, if one did; trials are heard of here, too."""
        try:
            future = self._finished.get(timeout=seconds)
        except Empty:
            return
        self._futures.pop(future.key, None)
        worker = self._trials.pop(future.key, None)
        if worker is None:
            yield future
            return
        if future.status in ("cancelled", "lost"):
            return  # and it is asked again
        try:
            lacks, why, _ = future.result(timeout=ANSWER_SECONDS)
        except Exception as exc:
            lacks, why = None, f"{type(exc).__name__}: {' '.join(str(exc).split())}"
        if why is not None:
            lacks = f"has not shown that it can do the work: {why}; see its log"
        if lacks is None:
            self._usable.add(worker)
        else:
            self._leave_out(worker, f"the worker {worker} {lacks}")


def _worker(info: Mapping[str, Any]) -> _Worker:
    gpus = int(info.get("resources", {}).get(RESOURCE, 0))
    return _Worker(threads=info["nthreads"], gpus=gpus, takes=info.get("status", "running") == "running")


def _in_thread(work: Callable[[Any, Sequence[str]], Any], client: Any, workers: Sequence[str]) -> Future[Any]:
    """What it returns; in a thread that nobody waits for."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work(client, workers))
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future
