"""Where the weights of a pretrained encoder come from: a file, a folder, or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from stages.encoder.hub import Snapshot, fetch, snapshot_at
from stages.encoder.weights import WeightsError, read_state

RANDOM: Literal["random"] = "random"
"""In place of a path: weights that nothing has trained, asked for in so many words."""
Weights = Path | Literal["random"] | None


@dataclass(frozen=True, slots=True)
class Source:
    """Weights and what is known of them.

    Attributes:
        state: the tensors, by whatever names they have.
        name: for the card.
        place: for messages.
        snapshot: the released folder, if it is one.
    """

    state: dict[str, Tensor]
    name: str
    place: Path
    snapshot: Snapshot | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The folder's ``config.json``; empty where there is none."""
        return self.snapshot.config if self.snapshot else {}

    @property
    def revision(self) -> str | None:
        """The commit, where it is known."""
        return self.snapshot.revision if self.snapshot else None


def gather(repo: str, weights: Path | None, *, hub: Path | None, gated: bool) -> Source:
    """The weights of a released model: those that are given, else those that are here, else what the hub gives.

    Args:
        repo: ``ORG/MODEL``.
        weights: a file, or a folder as the hub gives it.
        hub, gated: see `stages.encoder.hub.fetch`.

    Raises:
        WeightsError, HubError: they are missing, or cannot be read.
    """
    if weights is not None and not weights.exists():
        raise WeightsError(f"{weights} is not there; expected a state dict or a folder as the hub gives it")
    if weights is not None and not weights.is_dir():
        beside = Snapshot(weights.parent) if (weights.parent / "config.json").is_file() else None
        return Source(read_state(weights), f"file:{weights.name}", weights, beside)
    snapshot = snapshot_at(weights) if weights is not None else fetch(repo, hub=hub, gated=gated)
    state: dict[str, Tensor] = {}
    for path in snapshot.weights:
        state |= read_state(path)
    return Source(state, f"hub:{repo}", snapshot.folder, snapshot)
