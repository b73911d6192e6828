"""What a configuration says of a model and of its fit, and what of it a trained model depends on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipeline.cohort.cohort import Cohort
from pipeline.cohort.labels import task_for
from pipeline.cohort.patients import slides_of
from pipeline.cohort.spelling import column_key
from pipeline.cohort.training_table import read_training_table
from pipeline.config import Config
from pipeline.config.cohort import CohortConfig
from pipeline.errors import UsageError
from pipeline.model.build import backbone_of
from pipeline.model.spec import ModelSpec
from pipeline.task.task import WORDS, Task
from pipeline.train.job import Job
from pipeline.train.rates import default_rate
from stages.given_map import MapError
from stages.given_places import split_measurement
from stages.prior import Prior
from stages.pyramid.chunk_cache import ChunkCache, chunk_cache


def configured_cohort(told: CohortConfig, *, folds: int | None = None, splits: Path | None = None) -> Cohort:
    """The cohort that a configuration names, fit for training.

    Raises:
        UsageError: see `read_training_table`; or both folds and splits are given.
    """
    if folds is not None and splits is not None:
        raise UsageError(
            "training.splits gives the splits, and training.folds asks for others: give one of the two (null unsets "
            "the other)"
        )
    return read_training_table(
        told.table,
        label=None if told.label_columns else told.label,
        root=told.slides,
        columns=told.columns,
        positive=told.positive,
        folds=folds,
        classes=None if told.kind is None else told.kind == "classification",
        splits=splits,
        bags=told.bags,
    )


def configured_task(told: CohortConfig, cohort: Cohort) -> Task:
    """What a configuration, and else the labels, say of the task.

    Raises:
        UsageError: see `task_for`; a column that the table has not.
    """
    have = {column_key(name) for name, _ in cohort.slides[0].others}
    for name in told.label_columns:
        if column_key(name) not in have:
            raise UsageError(f"{told.table}: no column {name!r}: correct cohort.{_setting_of(told, name)}")
    return task_for(cohort, told.kind, labels=told.label_columns, grades=told.grades, times=told.times)


def _setting_of(told: CohortConfig, column: str) -> str:
    return next((name for name in ("time", "event") if getattr(told, name) == column), "labels")


def refuse_settings(config: Config, task: Task) -> None:
    """Refuse settings that are of classes, or of two, where the label is another.

    Raises:
        UsageError: which.
    """
    if config.training.threshold_sensitivity is not None and (task.kind != "classification" or len(task.names) != 2):
        found = f"{len(task.names)} classes" if task.kind == "classification" else WORDS[task.kind]
        raise UsageError(f"training.threshold_sensitivity is of two classes, and the label is {found}: leave it out")
    if task.kind == "classification":
        return
    if config.training.class_weights == "balanced":
        raise UsageError(
            f"training.class_weights balanced is of classes, and the label is {WORDS[task.kind]}: leave it out"
        )
    if config.training.ensemble and task.kind in ("ordinal", "regression", "discrete_survival"):
        raise UsageError(
            f"training.ensemble takes the mean of log-odds or log hazards, and the label is {WORDS[task.kind]}, which "
            "each fold tells on a scale of its own: leave it out"
        )
    if task.kind == "survival" and config.training.batch_size < 2:
        raise UsageError(
            "training.batch_size 1: survival compares slides of one step: give 2 at least, or set cohort.times "
            "(discrete_survival), which compares none"
        )
    if task.kind == "survival" and config.training.accumulate > 1:
        raise UsageError(
            f"training.accumulate {config.training.accumulate}: survival compares slides of one batch, and of several "
            "it would be another loss, not that of one so many times as large: leave it out and raise "
            "training.batch_size, or set cohort.times (discrete_survival), which compares none"
        )


def model_spec(config: Config, task: Task) -> ModelSpec:
    """What a configuration says of the model itself."""
    return ModelSpec(
        classes=task.names,
        task=task.kind,
        labels=task.labels,
        times=task.times,
        unit=config.cohort.unit,
        attention_mpp=config.view.attention_mpp,
        patch_mpp=config.view.patch_mpp,
        patch_px=config.view.patch_px,
        attention=config.attention.kind,
        encoder=config.encoder.name,
        dim=config.encoder.dim,
        scheme=config.sampling.scheme,
        control=config.sampling.control_variate,
        inner_mpp=config.attention.inner_mpp,
        region_cells=config.attention.region_cells if config.attention.inner_mpp else 1,
        region_samples=config.attention.region_samples if config.attention.inner_mpp else 1,
        snap=config.sampling.snap,
        tune=config.encoder.tune,
        **{
            "samples": config.sampling.samples,
            "block": config.sampling.block,
            **(_on_frozen(config) if config.attention.kind == "encoder" else {}),
        },
    )


def _on_frozen(config: Config) -> dict[str, Any]:
    """What a specification says of a model on a frozen encoder only."""
    told = config.attention
    if config.model.kind == "exhaustive":
        return {
            "head": config.model.head,
            "context": told.context if config.model.head == "evidence" else (),
            "components": told.components,
            "members": config.training.members,
            "precision": config.encoder.precision,
            "samples": 0,
            "block": 1,
        }
    return {
        "coarse_mpp": told.coarse_mpp,
        "enlarge": told.enlarge,
        "context": told.context,
        "against": told.against,
        "components": told.components,
        "fine_components": told.fine_components,
        "uniform": told.uniform,
        "precision": config.encoder.precision,
        "members": config.training.members,
    }


def fit_settings(config: Config, spec: ModelSpec) -> dict[str, Any]:
    """What `fit` is told of the configuration, and what a model depends on of it."""
    beside = {"folds", "folds_by", "repeats", "splits", "ensemble", "calibration_slides", "device", "devices"}
    beside |= {
        "inner_val",
        "inner_val_by",
        "calibration_patches",
        "members",
        "compare",
        "threshold_sensitivity",
        "tensorboard",
    }
    settings = config.training.model_dump(exclude=beside) | config.augmentation.model_dump()
    if settings["learning_rate"] is None:
        settings["learning_rate"] = default_rate(spec)
    return settings


def encoder_of(spec: ModelSpec, config: Config) -> dict[str, Any]:
    """What a frozen encoder is, whatever its name: its weights may come with another release."""
    if not spec.frozen or spec.bags is not None:
        return {}
    return {"encoder": backbone_of(spec.encoder, config.encoder.weights, spec.precision).card.identity}


def cache_in(config: Config) -> ChunkCache | None:
    """What keeps on disk what was read of slides, where that is asked for."""
    kept = config.reading.cache
    return None if kept is None else chunk_cache(kept, round(config.reading.cache_gb * 1e9))


def prior_in(config: Config) -> Prior | None:
    """What says where to draw, beside the model's attention."""
    told = config.attention
    if told.prior is None:
        return None
    place, measurement = split_measurement(told.prior)
    return Prior(place, told.prior_mpp, told.prior_channel, measurement)


def prior_of(job: Job, config: Config) -> dict[str, Any]:
    """What training draws by beside the model's attention, as a setting: by its content."""
    prior = prior_in(config)
    if prior is None:
        return {}
    if prior.is_network:
        return {"prior": prior.digest()}
    digest = hashlib.sha256()
    for slide in slides_of(job.train):
        try:
            digest.update(slide.slide_id.encode() + bytes.fromhex(prior.of(slide.slide_id).digest()))
        except (MapError, OSError):
            continue  # the slide was left out for it
    return {"prior": digest.hexdigest()}
