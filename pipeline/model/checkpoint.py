"""A model in one safetensors file: weights, specification, calibration. Nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from pipeline.errors import UsageError
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import ModelSpec
from stages.prediction.predict import Calibration

FORMAT = "saccade-2"


def save_model(model: AttentionSampler, path: Path) -> None:
    """Write weights, spec and calibration as one safetensors file (the caller makes the write atomic)."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {"format": FORMAT, "spec": json.dumps(asdict(model.spec))}
    if model.calibration is not None:
        metadata["calibration"] = json.dumps(asdict(model.calibration))
    safetensors.torch.save_file(state, path, metadata=metadata)


def load_model(path: Path, *, device: str = "cpu") -> AttentionSampler:
    """Read a checkpoint written by `save_model`; nothing in it is ever executed.

    Args:
        path: the file.
        device: "cpu", "cuda", "cuda:N", or "auto": a GPU where there is one.

    Raises:
        UsageError: missing, truncated, or not one of ours; its encoder needs what is not installed; or no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise UsageError(
                f"{path} is not a {FORMAT} checkpoint: give the model.safetensors that `saccade train` wrote"
            )
        spec = json.loads(metadata["spec"])
        spec["classes"] = tuple(spec["classes"])
        model = AttentionSampler(ModelSpec(**spec), calibration=_calibration(metadata.get("calibration")))
        model.load_state_dict(safetensors.torch.load_file(path))
    except FileNotFoundError as exc:
        raise UsageError(f"no checkpoint at {path}: give the model.safetensors that `saccade train` wrote") from exc
    except ImportError as exc:
        raise UsageError(f"cannot load the checkpoint {path}: {exc}") from exc
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as exc:
        reason = str(exc).splitlines()[0]
        raise UsageError(f"cannot load the checkpoint {path}: {reason}; it is damaged or of another version") from exc
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as exc:
        raise UsageError(f"cannot compute on {device!r}: {str(exc).splitlines()[0]}; use --device cpu") from exc


def _calibration(text: str | None) -> Calibration | None:
    if text is None:
        return None
    told = json.loads(text)
    told["budgets"], told["factors"] = tuple(told["budgets"]), tuple(told["factors"])
    return Calibration(**told)


def model_digest(path: Path) -> str:
    """SHA-256 of a checkpoint file: part of every result's key."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
