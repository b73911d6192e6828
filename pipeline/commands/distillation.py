"""The distillation of attention MIL into a model that reads a few tiles, and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.commands.arguments import AnyPath
from pipeline.errors import computing


@dataclass(frozen=True, slots=True)
class DistilSummary:
    """What a distillation came to.

    Attributes:
        model: the checkpoint.
        excluded: why slides were left out, by their names.
        fidelity: how near it is to its teacher on held-out slides, a row for each number of patches; as fidelity.csv.
    """

    model: Path
    excluded: dict[str, str]
    fidelity: list[dict[str, Any]] = field(repr=False)


@computing()
def distil(
    config: AnyPath,
    *,
    out: AnyPath,
    overrides: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> DistilSummary:
    """Make of attention MIL on all tiles, and its bags, a model that reads a few and estimates the same prediction.

    Args:
        config: the configuration (YAML); configs/distil.yaml has its keys.
        out: the folder for what is written; made where it is missing.
        overrides: values of the configuration in place of the file's, such as "student.samples=64".
        say: called with each line about how far it is, such as `print`.

    Raises:
        UsageError: the configuration, the teacher, the bags, the cohort table or the folder cannot be used.
    """
    from pipeline.config import load_distil_config

    loaded = load_distil_config(Path(config), overrides)
    from pipeline.distil.distil import distil_cohort

    metrics = distil_cohort(loaded, Path(out), say=say or (lambda line: None))
    return DistilSummary(Path(out) / "model.safetensors", metrics["excluded"], metrics.get("fidelity", []))
