"""What a piece of work costs: seconds, seconds of all processor cores, and energy where the machine tells it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
"""Where Linux tells what the processor packages have consumed (RAPL)."""

_JOULES_A_WH = 3600


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent on some work.

    Attributes:
        seconds: by the clock.
        cpu_seconds: of all cores, by this process.
        wh: watt-hours of the processor packages, whoever used them; None: the machine does not tell.
    """

    seconds: float
    cpu_seconds: float
    wh: float | None

    def each(self, count: int) -> Spent:
        """The share of each of ``count`` pieces."""
        return Spent(self.seconds / count, self.cpu_seconds / count, None if self.wh is None else self.wh / count)


class Meter:
    """Measures from when it is made.

    Args:
        device: of the model; work that it has not finished is waited for, and what it consumes beside the processor is
            not told.
        powercap: the folder of the energy counters.
    """

    def __init__(self, device: torch.device, *, powercap: Path = POWERCAP) -> None:
        self._device, self._powercap = device, powercap
        self._wait()
        self._energy = packages(powercap) if device.type == "cpu" else {}
        self._seconds, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Spent:
        """What was spent until now."""
        self._wait()
        seconds, cpu = time.perf_counter() - self._seconds, time.process_time() - self._cpu
        now = packages(self._powercap) if self._energy else {}
        joules = [_since(self._energy[name], now[name]) for name in self._energy if name in now]
        return Spent(seconds, cpu, sum(joules) / _JOULES_A_WH if joules else None)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def packages(powercap: Path = POWERCAP) -> dict[str, tuple[int, int]]:
    """Of each processor package, microjoules that it has consumed and at how many its counter begins again; empty where
    the system tells none, or only its owner."""
    found = {}
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue  # a part of a package, which counts it already
        try:
            used, most = (int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj"))
        except (OSError, ValueError):
            continue
        found[zone.name] = used, most
    return found


def _since(before: tuple[int, int], now: tuple[int, int]) -> float:
    used = now[0] - before[0]
    return (used + now[1] if used < 0 else used) / 1e6
