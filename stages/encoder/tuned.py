"""A pretrained encoder whose last blocks learn with the rest: unit features of a length of one's own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from stages.encoder.backbone import Backbone
from stages.encoder.patch_encoder import PatchEncoder


class TunedEncoder(PatchEncoder):
    """A backbone and a linear map of its features, ``g(x) = A b(x)``, made to give unit features as any encoder.

    Args:
        backbone: what it starts from; its last blocks learn, and what comes after them.
        dim: length of a feature.
        last: how many blocks.
    """

    def __init__(self, backbone: Backbone, dim: int, *, last: int) -> None:
        super().__init__(backbone.unfreeze(last), dim)
        self.project = nn.Linear(backbone.dim, dim)

    def train(self, mode: bool = True) -> TunedEncoder:
        """As `torch.nn.Module.train`; what is frozen stays as it is."""
        super().train(mode)
        self.body.train(mode)
        return self

    def parameter_groups(self, rate: float, decay: float) -> list[dict[str, Any]]:
        """For an optimiser: the map at ``rate``, the backbone's blocks at ``rate decay^k`` from the last to the
        first."""
        backbone: Backbone = self.body  # type: ignore[assignment]
        return [
            {"params": list(self.project.parameters()), "lr": rate},
            *backbone.parameter_groups(rate * decay, decay),
        ]

    def _responses(self, patches: Tensor) -> Tensor:
        responses: Tensor = self.project(self.body(patches))
        return responses


def tuned_encoder(backbone: Backbone, dim: int, *, last: int, save_memory: bool = False) -> TunedEncoder:
    """An encoder that starts from a pretrained one.

    Args:
        backbone: of its own, since it changes.
        dim: length of a feature.
        last: how many blocks learn.
        save_memory: compute blocks again for the gradient rather than keep what is between them.

    Raises:
        ValueError: it has no blocks or fewer, or cannot save memory so.
    """
    if save_memory:
        backbone.checkpoint_gradients()
    return TunedEncoder(backbone, dim, last=last)
