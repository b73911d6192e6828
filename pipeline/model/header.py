"""What a checkpoint says of its model beside the weights: enough to know what is done, without what computes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import safetensors

from pipeline.errors import UsageError
from pipeline.model.quality import Quality
from pipeline.model.spec import ModelSpec, misfits
from pipeline.output.documents import read_json
from stages.disk import open_regular, refusal
from stages.encoder.card import EncoderCard
from stages.encoder.registry import is_exported
from stages.mil.sizes import TeacherSizes
from stages.place import Url, place

if TYPE_CHECKING:  # which takes scipy, and few models have one
    from pipeline.model.label_calibration import LabelCalibration

FORMAT = "saccade-2"
MODEL = "model.safetensors"
"""What `saccade train` calls it."""
ENSEMBLE_FORMAT = "saccade-ensemble-1"
ENSEMBLE = "ensemble.json"
"""What it calls the models of a cross-validation together."""
AGAIN = "run the `saccade train` of its folder again with training.ensemble: true"


class Knows(Protocol):
    """What is known of a model, be its weights here or not: see `SlideModel`.

    Attributes:
        card: of its frozen encoder; None: it has none.
        several: whether it is several models together.
    """

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def trained_on(self) -> frozenset[str]: ...
    @property
    def validated_on(self) -> frozenset[str]: ...
    @property
    def quality(self) -> Quality | None: ...
    @property
    def label_calibration(self) -> LabelCalibration | None: ...
    @property
    def card(self) -> EncoderCard | None: ...
    @property
    def several(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Known:
    """See `Knows`."""

    spec: ModelSpec
    trained_on: frozenset[str] = frozenset()
    validated_on: frozenset[str] = frozenset()
    quality: Quality | None = None
    label_calibration: LabelCalibration | None = None
    card: EncoderCard | None = None
    several: bool = False


def read_known(path: Path, *, encoder_weights: Path | None = None) -> Known:
    """What is known of the model of a checkpoint, or of an ensemble.json, as `load_model` would find it.

    Raises:
        UsageError: missing, truncated, or not one of ours; an ensemble's models are not those that it was made of.
    """
    if path.name != ENSEMBLE:
        spec, metadata = read_header(path, encoder_weights=encoder_weights)
        with refusing(path):
            card = EncoderCard.from_json(json.loads(metadata["encoder"])) if "encoder" in metadata else None
        return Known(spec, card=card, **texts_of(metadata, path))
    told = read_ensemble(path)
    members = [read_known(file, encoder_weights=encoder_weights) for file in members_of(path, told)]
    trained, validated = seen_by_all(members)
    with refusing(path):
        quality = told["quality"] and Quality.from_json(told["quality"])
    first = members[0]
    return Known(first.spec, trained, validated, quality, card=first.card, several=True)


def seen_by_all(members: Sequence[Knows]) -> tuple[frozenset[str], frozenset[str]]:
    """Slides that all of an ensemble's models were made with: those that any was trained on, and the others."""
    every = frozenset.intersection(*(one.trained_on | one.validated_on for one in members))
    trained = every & frozenset.union(*(one.trained_on for one in members))
    return trained, every - trained


def told_of_encoder(model: Knows) -> dict[str, Any] | None:
    """A frozen encoder's card and what is doubtful about its use, as plain values; None of other models."""
    return None if model.card is None else {**model.card.to_json(), "doubts": misfits(model.spec, model.card)}


def read_header(path: Path, *, encoder_weights: Path | None = None) -> tuple[ModelSpec, dict[str, str]]:
    """A checkpoint's specification, with the network as its encoder that is given in its place, and all of its texts.

    Raises:
        UsageError: missing, truncated, or not one of ours.
    """
    with refusing(path):
        open_regular(path).close()  # whose errors say why
        with safetensors.safe_open(path, framework="np") as file:  # and that it is as long as it says
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise UsageError(
                f"{path} is not a {FORMAT} checkpoint: give the model.safetensors that `saccade train` wrote"
            )
        told = json.loads(metadata["spec"])
        told["classes"] = tuple(told["classes"])
        told.setdefault("region_margin", False)  # not in checkpoints of before there was one
        for name in ("context", "against", "labels", "times"):
            if name in told:
                told[name] = tuple(told[name])
        if told.get("teacher"):
            told["teacher"] = TeacherSizes(**told["teacher"])
        spec = ModelSpec(**told)
    if encoder_weights is not None and is_exported(str(encoder_weights)):
        spec = replace(spec, encoder=str(encoder_weights))  # the file is the encoder
    return spec, metadata


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Say of whatever goes wrong with a checkpoint's content which it is, and what to do.

    Raises:
        UsageError: something went wrong.
    """
    try:
        yield
    except FileNotFoundError as exc:
        raise UsageError(f"no checkpoint at {path}: give the model.safetensors that `saccade train` wrote") from exc
    except ImportError as exc:
        raise UsageError(f"cannot load the checkpoint {path}: {exc}") from exc
    except OSError as exc:
        raise UsageError(f"cannot read the checkpoint {path}: {refusal(exc, path, writing=False)}") from exc
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as exc:
        reason = str(exc).splitlines()[0]
        raise UsageError(f"cannot load the checkpoint {path}: {reason}; it is damaged or of another version") from exc


def texts_of(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What a checkpoint's texts say beside the specification, by the names of `Known`."""
    with refusing(path):
        known: dict[str, Any] = {
            "trained_on": frozenset(json.loads(metadata.get("trained_on", "[]"))),
            "validated_on": frozenset(json.loads(metadata.get("validated_on", "[]"))),
            "quality": Quality.from_json(json.loads(metadata["quality"])) if "quality" in metadata else None,
        }
        if "label_calibration" in metadata:
            from pipeline.model.label_calibration import LabelCalibration

            known["label_calibration"] = LabelCalibration.from_json(json.loads(metadata["label_calibration"]))
        return known


def find_model(path: Path) -> Path:
    """The checkpoint that a path means: the file, or the one in the folder of a training.

    Raises:
        UsageError: a URL, or a folder without one; it says whether a training is unfinished there.
    """
    if isinstance(place(path), Url):
        raise UsageError(f"{place(path)}: models are read from disks: copy it to one, and name that")
    if not os.path.isdir(path):
        return path
    if (path / MODEL).is_file():
        return path / MODEL
    inside = sorted(f"{at.parent.name}/{MODEL}" for at in path.glob(f"*/{MODEL}"))
    if any(path.glob("training-*.json")) or any(path.glob("training-*.ckpt")) or (path / "splits.csv").exists():
        folds = f", or give a model in it: {', '.join(inside)}" if inside else ""
        raise UsageError(f"{path} holds an unfinished training: run its `saccade train` again to finish it{folds}")
    near = f" give the one in it that you mean: {', '.join(inside)}" if inside else " give what `saccade train` wrote"
    raise UsageError(f"{path} is a folder without a {MODEL}:{near}")


def find_ensemble(path: Path) -> Path:
    """The ensemble that a path means: the file, or the one in the folder of a training.

    Raises:
        UsageError: there is none.
    """
    file = path / ENSEMBLE if path.is_dir() else path
    if file.name != ENSEMBLE or not file.is_file():
        raise UsageError(
            f"--ensemble: no {ENSEMBLE} at {path}: {AGAIN}, by which the models of its folds are put together"
        )
    return file


def checkpoint_files(path: Path) -> list[Path]:
    """The checkpoints that a model is loaded from: itself, or those of an ensemble.

    Raises:
        UsageError: its ensemble.json is not one.
    """
    if path.name != ENSEMBLE:
        return [path]
    return [path.parent / member["model"] for member in read_ensemble(path)["members"]]


def read_ensemble(path: Path) -> dict[str, Any]:
    """What an ensemble.json says.

    Raises:
        UsageError: it is not one.
    """
    told = read_json(path)
    if not isinstance(told, dict) or told.get("format") != ENSEMBLE_FORMAT:
        raise UsageError(f"{path} is not a {ENSEMBLE_FORMAT} file: give the {ENSEMBLE} that `saccade train` wrote")
    return told


def members_of(path: Path, told: Mapping[str, Any]) -> list[Path]:
    """The checkpoints that an ensemble.json says, which are those that it was made of.

    Raises:
        UsageError: one is gone, or another.
    """
    files = [path.parent / member["model"] for member in told["members"]]
    for file, member in zip(files, told["members"], strict=True):
        if not file.is_file():
            raise UsageError(f"{path} names {file}, which is not there: restore it, or {AGAIN}")
        if model_digest(file) != member["digest"]:
            raise UsageError(f"{file} is another than {path} was made of: {AGAIN}")
    return files


def model_digest(path: Path) -> str:
    """SHA-256 of a checkpoint file: part of every result's key."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
