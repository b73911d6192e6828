"""What a training step costs: time of many models in turn, activations kept for the backward pass, peak memory."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
"""Memory goes back to the system when it is freed, for every model alike: else glibc learns thresholds from the sizes
that a model happens to free, and its peak tells of that."""
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def interleaved_ms(
    steps: dict[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of each step, all of them once a round: what slows the machine for a while slows them all.

    Args:
        clock: `time.process_time` for what computes on one thread: other work on the machine then counts little.
    """
    return {name: found for name, (found,) in interleaved(steps, clock, rounds=rounds, warm_up=warm_up).items()}


def interleaved(
    steps: dict[str, Callable[[], object]], *clocks: Callable[[], float], rounds: int, warm_up: int = 1
) -> dict[str, tuple[float, ...]]:
    """As `interleaved_ms`, by each of some clocks."""
    found: dict[str, list[list[float]]] = {name: [[] for _ in clocks] for name in steps}
    for number in range(warm_up + rounds):
        for name, step in steps.items():
            started = [clock() for clock in clocks]
            step()
            ended = [clock() for clock in clocks]
            if number >= warm_up:
                for times, before, after in zip(found[name], started, ended, strict=True):
                    times.append(1e3 * (after - before))
    return {name: tuple(map(statistics.median, times)) for name, times in found.items()}


def saved_bytes(loss: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that autograd keeps between forward and backward pass, each storage once, parameters left out."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # holding the tensor keeps its address from being used again
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept_alive = loss()
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    found = sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own)
    del kept_alive
    return found


def peak_bytes(step: Callable[[], object], *, steps: int = 3) -> int:
    """How far ``step`` raises this process's resident memory at its peak, over what it holds before.

    Linux only: elsewhere the high-water mark cannot be set back, and the difference misses what came before.
    """
    before = _resident()
    _reset_high_water()
    for _ in range(steps):
        step()
    return max(0, _high_water() - before)


def in_fresh_process(command: Iterable[object]) -> dict[str, Any]:
    """Run Python with ``command`` on one thread, with `ALLOCATOR`; the JSON of its last line of output."""
    environment = os.environ | ALLOCATOR | THREADS
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _status(key: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(key + ":")), None)


def _high_water() -> int:
    found = _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return found if found is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _resident() -> int:
    found = _status("VmRSS")
    return found if found is not None else _high_water()


def _reset_high_water() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
