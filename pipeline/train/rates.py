"""How large the steps of a fit are, unless users say."""

from __future__ import annotations

from pipeline.model.spec import ModelSpec

END_TO_END = 1e-3
"""Of a model whose encoder learns."""
OF_HEADS = {None: 2e-2, "evidence": 2e-2, "mean": 1e-2, "gated": 2e-3, "transmil": 5e-4}
"""Of heads on a frozen encoder; None: of the sampled model."""


def default_rate(spec: ModelSpec) -> float:
    """Peak step size."""
    return OF_HEADS[spec.head] if spec.frozen else END_TO_END
