"""Whether labels that sets are calibrated on agree with a model, as far as it was found to be good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.model.quality import Quality, measured_in_words, right_in_words
from pipeline.model.spec import ModelSpec
from pipeline.statistics.metrics import evaluate
from stages.amounts import counted
from stages.prediction.conformal import Conformal


def score(conformal: Conformal, spec: ModelSpec) -> dict[str, Any]:
    """What `evaluate` finds on the slides of a calibration, at the model's own number of patches, mean over draws."""
    at = conformal.at(spec.samples)[0]
    p = 1 - conformal.scores[conformal.budgets.index(at)].mean(1)
    labels = [spec.classes[label] for label in conformal.labels]
    return evaluate(labels, p.clip(0, 1), [str(patient) for patient in conformal.patients], spec.classes)


def told_of_labels(scored: Mapping[str, Any]) -> str:
    """How well a model does on the slides of its calibration, in a phrase."""
    auroc = scored["auroc"]
    ranked = "" if auroc["value"] is None else f"{measured_in_words('AUROC', **_named(auroc))}; "
    right = right_in_words(scored["right_per_class"], scored["slides_per_class"])
    return f"on these slides {ranked}the most probable class is right for {right}"


def contradiction(scored: Mapping[str, Any], quality: Quality | None) -> str | None:
    """Why labels of a calibration seem to be others than the model was fitted to, or None.

    It says so where the 95 % intervals of its AUROC here and of what it was found to be do not meet, or where it ranks
    worse here than chance does in 97.5 % of cases.
    """
    auroc = scored["auroc"]
    if auroc["value"] is None or auroc["high"] is None:
        return None
    here = (
        f"{measured_in_words('AUROC', **_named(auroc))} on {counted(scored['patients'], 'patient')} of the calibration"
    )
    if quality is not None and quality.low is not None and auroc["high"] < quality.low:
        found = f"where the model was found to have {quality.found}"
    elif 1 - auroc["value"] > scored["auroc_by_chance"]:
        found = "which is below chance, 0.5"
    else:
        return None
    return (
        f"{here}, {found}: look whether labels are swapped, of another column (--label) or of another task; if they "
        "are right, the model fails on such slides"
    )


def _named(auroc: Mapping[str, Any]) -> dict[str, Any]:
    return {"score": auroc["value"], "low": auroc["low"], "high": auroc["high"]}
