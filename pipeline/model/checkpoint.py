"""A model in one safetensors file: weights, specification, calibration, its cohort. Nothing in it is ever executed.

The header is written here, in one order: the library's writer orders the metadata at random, and the digest of the
file is part of every result's key, so that a model which is saved again must be the same bytes.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from pipeline.device import find_device
from pipeline.errors import UsageError
from pipeline.model.build import OnFrozenEncoder, build_model
from pipeline.model.fold_ensemble import FoldEnsemble
from pipeline.model.header import (
    ENSEMBLE,
    ENSEMBLE_FORMAT,
    FORMAT,
    MODEL,
    find_model,
    members_of,
    model_digest,
    read_ensemble,
    read_header,
    refusing,
    texts_of,
)
from pipeline.model.label_calibration import appearance_from_json, appearance_to_json
from pipeline.model.quality import Quality
from pipeline.model.slide_model import SlideModel
from pipeline.output.documents import write_json
from stages.disk import new_file
from stages.encoder.card import EncoderCard
from stages.encoder.registry import is_exported
from stages.encoder.sources import RANDOM
from stages.prediction.intervals import Calibration

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_model(model: SlideModel, path: Path) -> None:
    """Write weights, spec and calibration as one safetensors file, in one step; the same model gives the same bytes.

    The file is ``n``, 8 bytes little-endian; a JSON header of ``n`` bytes, padded with spaces to a multiple of 8; the
    tensors end to end, widest type first so that each is aligned, then by name. The header's ``__metadata__`` has the
    texts ``format`` and, as JSON, ``spec``, ``calibration``, ``trained_on`` and ``validated_on``, fingerprints of
    slides, ``appearance``, how those look that it was trained on, ``quality``, how good it was found to be, and
    ``label_calibration``, what sets of classes are made by; of a frozen encoder ``encoder``, its card: its weights are
    not in the file, since most may not be passed on, and some are gigabytes.

    Raises:
        KeyError: a weight is of a type that the format has no name for.
        OSError: it cannot be written.
    """
    metadata = {"format": FORMAT, "spec": json.dumps(asdict(model.spec))}
    if model.calibration is not None:
        metadata["calibration"] = json.dumps(asdict(model.calibration))
    if model.trained_on:
        metadata["trained_on"] = json.dumps(sorted(model.trained_on))
    if model.validated_on:
        metadata["validated_on"] = json.dumps(sorted(model.validated_on))
    if model.appearance is not None:
        metadata["appearance"] = json.dumps(appearance_to_json(model.appearance))
    if model.label_calibration is not None:
        metadata["label_calibration"] = json.dumps(model.label_calibration.to_json(), separators=(",", ":"))
    if model.quality is not None:
        metadata["quality"] = json.dumps(model.quality.to_json())
    if isinstance(model, OnFrozenEncoder):
        metadata["encoder"] = json.dumps(model.backbone.card.to_json())
    state = sorted(model.state_dict().items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, value in state:
        start, end = end, end + value.nbytes
        header[name] = {"dtype": _DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with new_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, value in state:
            file.write(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def load_model(path: Path, *, device: str = "cpu", encoder_weights: Path | None = None) -> SlideModel:
    """Read a checkpoint written by `save_model`; nothing in it is ever executed.

    Args:
        path: the file, or the folder that `saccade train` wrote it to; or ``ensemble.json``, for the models of a
            cross-validation together.
        device: "cpu", "cuda", "cuda:N", "mps", or "auto": "cuda" where there is a GPU for it, else "cpu".
        encoder_weights: of its frozen encoder, where they are not those that the encoder's name stands for.

    Raises:
        UsageError: missing, truncated, or not one of ours; its encoder needs what is not installed; or no such device.
    """
    chosen = find_device(device)
    path = find_model(path)
    if path.name == ENSEMBLE:
        return _load_ensemble(path, device, encoder_weights)
    told, metadata = read_header(path, encoder_weights=encoder_weights)
    if encoder_weights is not None and is_exported(str(encoder_weights)):
        encoder_weights = None  # it is the encoder
    known = texts_of(metadata, path)
    label_calibration = known.pop("label_calibration", None)
    with refusing(path):
        model = build_model(
            told,
            encoder_weights=Path(RANDOM) if told.tune else encoder_weights,  # what was tuned is in the file
            calibration=_calibration(metadata.get("calibration")),
            appearance=appearance_from_json(json.loads(metadata.get("appearance", "null"))),
            **known,
        )
        model.label_calibration = label_calibration
        _refuse_other_encoder(model, json.loads(metadata.get("encoder", "{}")), path)
        model.load_state_dict(safetensors.torch.load_file(path))
    try:
        return model.to(chosen).eval()
    except RuntimeError as exc:  # out of its memory, or its driver is older than torch
        raise UsageError(f"cannot compute on {device!r}: {str(exc).splitlines()[0]}; use --device cpu") from exc


def ensemble_of(files: Sequence[Path], folder: Path) -> dict[str, Any]:
    """What ensemble.json in ``folder`` says of its members, which lie below it."""
    members = [{"model": file.relative_to(folder).as_posix(), "digest": model_digest(file)} for file in files]
    return {"format": ENSEMBLE_FORMAT, "members": members}


def save_ensemble(model: FoldEnsemble, path: Path, *, files: Sequence[Path], beside: Mapping[str, Any]) -> None:
    """Write ``ensemble.json``: which models predict together, by path and digest, and what they know together.

    Args:
        model: the ensemble.
        path: the file; its models lie in folders beside it.
        files: their checkpoints.
        beside: what else to record.
    """
    told = {
        **ensemble_of(files, path.parent),
        **beside,
        "calibration": model.calibration and asdict(model.calibration),
        "appearance": model.appearance and appearance_to_json(model.appearance),
        "quality": model.quality and model.quality.to_json(),
    }
    write_json(path, told)


def refuse_ensemble(model: SlideModel, path: Path) -> None:
    """Refuse an ensemble where one model is asked for.

    Raises:
        UsageError: it is one.
    """
    if isinstance(model, FoldEnsemble):
        raise UsageError(f"{path} is {len(model.each)} models together, which `saccade run` takes: give one {MODEL}")


def _load_ensemble(path: Path, device: str, encoder_weights: Path | None) -> FoldEnsemble:
    told = read_ensemble(path)
    members = [load_model(file, device=device, encoder_weights=encoder_weights) for file in members_of(path, told)]
    try:
        return FoldEnsemble(
            members,
            calibration=_calibration(json.dumps(told["calibration"])),
            appearance=appearance_from_json(told["appearance"]),
            quality=told["quality"] and Quality.from_json(told["quality"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise UsageError(f"cannot load {path}: {exc}; it is damaged or of another version") from exc


def _refuse_other_encoder(model: SlideModel, told: dict[str, Any], path: Path) -> None:
    """A frozen encoder's features mean nothing to a model that was fitted to another's."""
    if not isinstance(model, OnFrozenEncoder):
        return
    here, there = model.backbone.card, EncoderCard.from_json(told)
    if here.identity != there.identity:
        told_of = f"{path} was trained on the encoder {there.name!r}"
        if here.digest != there.digest:
            raise UsageError(
                f"{told_of} with digest {there.digest[:12]}, found {here.name!r} with digest {here.digest[:12]}: give "
                f"its own weights ({there.source}) with --encoder-weights"
            )
        name = here.unlike(there)[0]
        raise UsageError(
            f"{told_of}, whose {name} was {getattr(there, name)!r}, found {getattr(here, name)!r}: its weights are the "
            "same, but it is described otherwise than at the training; restore that"
        )


def _calibration(text: str | None) -> Calibration | None:
    told = None if text is None else json.loads(text)
    if told is None:
        return None
    for name in {"budgets", "factors", "far"} & told.keys():  # models of earlier versions look less far
        told[name] = tuple(told[name])
    return Calibration(**told)
