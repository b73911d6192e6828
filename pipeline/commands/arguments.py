"""What several commands are given, read alike: paths, sizes, bounds; what does not fit is refused."""

from __future__ import annotations

import math
import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from stages.amounts import amount, as_given, size

if TYPE_CHECKING:
    from stages.prior import Prior

AnyPath = str | PathLike[str]

MOST_WORKERS = max(64, 8 * (os.cpu_count() or 1))
"""More than that is a slip: each is a process with torch in it, some hundred MB."""


def check_reading(
    samples: int | None, tolerance: float | None, decide: float | None, risk: float | None, positive: str | None
) -> None:
    """Refuse bounds of the reading that are out of range, or that contradict each other."""
    if samples is not None and samples < 1:
        raise UsageError(f"samples must be at least 1, found {samples}")
    if tolerance is not None and not 0 < tolerance <= 1:
        raise UsageError(f"tolerance must lie above 0 and be at most 1, found {as_given(tolerance)}; such as 0.02")
    if decide is None:
        for name, value in (("risk", risk), ("positive", positive)):
            if value is not None:
                raise UsageError(
                    f"{name} says nothing without decide: leave it out, or give the threshold, such as 0.5"
                )
        return
    if tolerance is not None:
        raise UsageError("tolerance and decide each say when to stop reading: give one of them")
    if not math.isfinite(decide):
        raise UsageError(f"decide must be a number, found {decide}; such as 0.5")
    if risk is not None and not 0 < risk < 0.5:
        raise UsageError(f"risk must lie between 0 and 0.5, found {as_given(risk)}; such as 0.01")


def check_refer(refer: float | None, by_class: bool) -> None:
    """Refuse a stated error that is none, or a way to state it without one."""
    if refer is None and by_class:
        raise UsageError("by_class says how an error is stated: give refer, too, such as 0.1")
    if refer is not None and not 0 < refer < 1:
        raise UsageError(f"refer must lie between 0 and 1, found {as_given(refer)}; such as 0.1")


def given_prior(place: AnyPath | None, mpp: float | None, channel: int | None) -> Prior | None:
    """What says where to look, as it was given."""
    for name, value, fits in (
        ("prior_mpp", mpp, mpp is None or 0 < mpp < math.inf),
        ("prior_channel", channel, channel is None or channel >= 0),
    ):
        if value is not None and place is None:
            raise UsageError(f"{name} is for an .onnx network as prior, and no prior is given: leave it out")
        if not fits:
            raise UsageError(f"{name} must be {'more than 0' if value is mpp else '0 or more'}, found {value}")
    if place is None:
        return None
    from stages.given_places import split_measurement
    from stages.prior import Prior

    file, measurement = split_measurement(Path(place))
    return Prior(file, mpp, channel, measurement)


def memory_bytes(value: int | str | None) -> int | None:
    """What a process may take: enough for itself."""
    if value is None:
        return None
    from stages.budget import OWN_BYTES

    found = _bytes(value, "memory")
    if found < OWN_BYTES:
        raise UsageError(
            f"--memory {size(found)} is less than a process takes whatever the slide: give {size(OWN_BYTES)} or more"
        )
    return found


def disk_bytes(value: int | str | None) -> int | None:
    """What pyramids may take."""
    return None if value is None else _bytes(value, "disk")


def _bytes(value: int | str, name: str) -> int:
    """Bytes that were given as such or as a size."""
    try:
        return value if isinstance(value, int) else amount(value)
    except ValueError as exc:
        raise UsageError(f"{name}: {exc}") from exc
