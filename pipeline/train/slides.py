"""The slides of one fit: those that fail are left out, told once, and never tried again; the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pipeline.errors import reason_of
from pipeline.model.joint import spared
from pipeline.model.reading import UnreadError
from pipeline.model.values import View
from stages.slide.facts import SlideError

Result = TypeVar("Result")
LeaveOut = Callable[[int, str], None]
"""Told of a slide's index and why it is left out; may end the fit by raising."""
LeaveOutMembers = Callable[[Mapping[str, str]], dict[str, str]]
"""Told of slides of patients that are left out while the others of theirs go on, by name, and why; gives all such."""
Told = dict[int | str, str]
"""Why something is left out: of slides, or patients, by their index; of single slides of patients by their name."""


class TrainingSlides:
    """Slides by their index, which stays theirs whoever is left out: so the order of the others does not change.

    Args:
        count: how many there are.
        view: gives slide ``i``.
        leave_out: told of each that fails; None: its error is raised instead.
        lost: those that are left out from the start, and why.
        members: leaves out single slides of patients; None: there are none.
    """

    def __init__(
        self,
        count: int,
        view: Callable[[int], View],
        leave_out: LeaveOut | None = None,
        lost: Mapping[int, str] | None = None,
        members: LeaveOutMembers | None = None,
    ) -> None:
        self.count = count
        self.phase = ""
        """What is being done, such as "epoch 3"; a reason begins with it."""
        self.learnt = False
        """Whether the model has been fitted to them before."""
        self.lost = dict(lost or {})
        self._view, self._leave_out, self._members = view, leave_out, members

    def attempt(
        self, indices: Sequence[int], act: Callable[[list[int], list[View]], Result]
    ) -> tuple[list[int], Result] | None:
        """What ``act`` makes of those slides that can be read, and which these are; None where none can.

        ``act`` is called again without the slides that it could not read, so it must begin its random draws itself; a
        patient goes on with its other slides.
        """
        left = [i for i in indices if i not in self.lost]
        while left:
            views: dict[int, View] = {}
            for i in left:
                try:
                    views[i] = self._view(i)
                except SlideError as exc:
                    self._lose(i, exc)
            left = list(views)
            if not left:
                break
            try:
                return left, act(left, list(views.values()))
            except UnreadError as exc:
                for place, reason in exc.reasons.items():
                    self._lose(left[place], reason)
                left = [i for i in left if i not in self.lost]
        return None

    @property
    def told(self) -> Told:
        """What is left out by now, as an interrupted fit keeps it and the processes of one tell each other."""
        told: Told = {} if self._members is None else dict(self._members({}).items())
        for i, reason in self.lost.items():
            told[i] = reason
        return told

    def restore(self, told: Told) -> None:
        """Leave out what an interrupted fit, or another of its processes, left out."""
        if self._members is not None:
            self._members({name: reason for name, reason in told.items() if isinstance(name, str)})
        for i, reason in told.items():
            if isinstance(i, int) and i not in self.lost:
                self.lost[i] = reason
                if self._leave_out is not None:
                    self._leave_out(i, reason)

    def _lose(self, i: int, exc: Exception) -> None:
        if self._leave_out is None:
            raise exc
        reason = f"in {self.phase}: {reason_of(exc)}" + (
            "; what was learnt from it until then stays" if self.learnt else ""
        )
        if spared(exc, reason):
            return
        self.lost[i] = reason
        self._leave_out(i, reason)
