"""How large a teacher is: what of it a checkpoint says beside its weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TeacherSizes:
    """How large a teacher is, which its weights' shapes say.

    Attributes:
        members: M networks whose logits are averaged.
        dim: length D of a feature.
        hidden: length H of the embedding that attention is made from; 0: there is none, the feature itself.
        gates: length A of what attention is made from.
        branches: B attentions of each member: 1, or one for each class.
        classes: C.
        gated: whether ``tanh`` is multiplied by a ``sigmoid``.
    """

    members: int
    dim: int
    hidden: int
    gates: int
    branches: int
    classes: int
    gated: bool
