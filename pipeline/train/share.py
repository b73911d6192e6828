"""What one of several processes takes of every batch of a fit, and what they tell each other."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from stages.torchvision import admit_torchvision

with warnings.catch_warnings():  # other people's deprecations, at import
    warnings.simplefilter("ignore")
    admit_torchvision()
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning.pytorch.strategies import DDPStrategy

Told = TypeVar("Told")

MEETING = timedelta(minutes=5)
"""For all of them to find each other, once they are ready."""
PATIENCE = timedelta(days=365)
"""For the others of a step: a slide takes as long as it takes, and who is gone is noticed otherwise."""
PAUSE_SECONDS = 2e-4
"""Between two looks at whether the others are there: a wait in which an interrupt is heard."""


class Share:
    """One of the processes that a fit is shared by; alone, it takes everything.

    Args:
        rank: its number, from 0, who does what is done once.
        size: how many they are.
        store: a file that is not there yet, by which they find each other.
        ready: called before that: tells that this one is ready, or waits until the others are.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, store: Path | None = None, ready: Callable[[], None] = lambda: None
    ) -> None:
        self.rank, self.size = rank, size
        self._store, self._ready = store, ready
        self._group: Any = None

    @property
    def first(self) -> bool:
        """Whether this one does what is done once."""
        return self.rank == 0

    def of(self, items: Sequence[Told]) -> Sequence[Told]:
        """What it takes of a batch."""
        return items[self.rank :: self.size]

    def device(self, chosen: torch.device) -> torch.device:
        """Where it computes: of several GPUs each has its own."""
        return torch.device("cuda", self.rank) if self.size > 1 and chosen.type == "cuda" else chosen

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Meet the others, and leave them in the end; each takes its part of the cores."""
        if self.size == 1:
            yield
            return
        threads = torch.get_num_threads()
        self._ready()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        else:
            torch.set_num_threads(max(1, threads // self.size))
        distributed: Any = torch.distributed
        store = distributed.FileStore(str(self._store), self.size)
        store.set_timeout(MEETING)
        with _on_this_machine():
            backend = "nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
            self._group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        try:
            yield
        finally:
            self._group = None
            distributed.destroy_process_group()
            torch.set_num_threads(threads)

    def gather(self, value: Told) -> list[Told]:
        """What each of them says, by their numbers."""
        if self.size == 1:
            return [value]
        distributed: Any = torch.distributed
        there = distributed.barrier(group=self._group, async_op=True)
        while not there.is_completed():
            time.sleep(PAUSE_SECONDS)
        there.wait()  # raises where one of them is gone
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value, group=self._group)
        return found

    def align(self, model: nn.Module) -> None:
        """Take the first one's weights, and all else that it knows by now."""
        if self.size > 1:
            for values in (*model.parameters(), *model.buffers()):
                torch.distributed.broadcast(values.detach(), 0)

    @property
    def trainer(self) -> dict[str, Any]:
        """What Lightning's trainer is told of it, on the CPU or on GPUs."""
        if self.size == 1:
            return {}
        return {
            "devices": self.size,
            "strategy": DDPStrategy(cluster_environment=_Here(self), broadcast_buffers=False, init_sync=False),
        }


ALONE = Share()


class _Here(ClusterEnvironment):
    """The processes that are there already, for Lightning, which then starts none."""

    def __init__(self, share: Share) -> None:
        self._share = share

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "localhost"

    @property
    def main_port(self) -> int:
        return 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._share.size

    def set_world_size(self, size: int) -> None: ...

    def global_rank(self) -> int:
        return self._share.rank

    def set_global_rank(self, rank: int) -> None: ...

    def local_rank(self) -> int:
        return self._share.rank

    def node_rank(self) -> int:
        return 0


@contextmanager
def _on_this_machine() -> Iterator[None]:
    """Have processes talk by the loopback device: what a machine is called in its network need lead nowhere."""
    name = "GLOO_SOCKET_IFNAME"
    loopback = next((own for _, own in socket.if_nameindex() if own.startswith("lo")), None)
    if name in os.environ or loopback is None:
        yield
        return
    os.environ[name] = loopback
    try:
        yield
    finally:
        del os.environ[name]
