"""Where names went that the door does not have."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_MOVED = {
    "open_slide": ("open_pyramid", "slides", "slide", "pyramids", "pyramid", "files", "stages"),
    "SlideStore": ("virtual", "store"),
    "load_model": ("AttentionSampler", "model", "models", "checkpoint", "checkpoints"),
    "predict": ("predict_slide", "process_slide", "sample", "prediction", "aggregation"),
    "SlidePrediction": ("Prediction",),
    "run": ("run_cohort", "batch", "pipeline", "RunSettings"),
    "train": ("train_cohort", "training", "fit"),
    "cache": ("cache_pyramid", "cache_cohort", "verify_cohort", "verify_pyramid", "caching", "export_ngff04"),
    "read_cohort": ("find_target", "read_table", "read_training_table", "cohort"),
    "Cohort": ("CohortSlide",),
}
"""Public names, and what users may look for in their place: names and modules of earlier versions, without folders."""


def nearest(name: str, public: Sequence[str]) -> str | None:
    """The public name that stands for ``name`` now, or is spelled most like it; None where nothing is near."""
    moved = next((new for new, old in _MOVED.items() if name in old), None)
    if moved is not None:
        return moved
    by_fold = {known.casefold(): known for known in public}
    close = difflib.get_close_matches(name.casefold(), by_fold, n=1)
    return by_fold[close[0]] if close else None
