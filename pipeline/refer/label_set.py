"""A prediction's set of classes at a stated error, and what follows: its one class is called, or it is referred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.amounts import as_given

REFER = "refer"
"""What is said of a slide that is not called."""
BETWEEN = " | "
"""Between the classes of a set in a table."""
OWN = "the model, or its calls, were fitted to this slide: no error is stated of it"
"""Why of a slide that is no new one."""
UNLIKE = "it looks unlike the slides that calls were calibrated on"
UNTOLD = "the stated error of calls is not known to hold for it"


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The classes that may be a slide's label.

    Attributes:
        classes: in the model's order; none, one or several.
        call: the one class, or "refer".
        why: it is referred, or nothing is stated of it; else empty.
        error: stated: of slides of patients like those of calibration, at most this share have a set without their
            label, wherever it is called or referred; with ``by_class`` of the slides of each class; None: nothing is
            stated, of a slide that the model or the calibration was fitted to.
        by_class: see ``error``.
    """

    classes: tuple[str, ...]
    call: str
    why: str
    error: float | None
    by_class: bool

    def in_words(self) -> str:
        """The call, and why a slide is referred."""
        return f"call: {self.call}" + (f" ({self.why})" if self.why else "")

    def columns(self) -> dict[str, Any]:
        """Its cells of predictions.csv by column."""
        return {
            "call": self.call,
            "call_why": self.why,
            "label_set": BETWEEN.join(self.classes),
            "stated_error": self.error,
        }


def percent(share: float) -> str:
    """A share for a person, in three digits, or as many as tell it from nothing and from all."""
    told = (f"{100 * share:.{digits}g}" for digits in range(3, 18))
    return next((one for one in told if share in (0, 1) or 0 < float(one) < 100), as_given(100 * share)) + " %"
