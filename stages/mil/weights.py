"""Weights of attention MIL from a file of another program: what its shapes say it is."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from stages.disk import open_regular, refusal
from stages.mil.sizes import TeacherSizes
from stages.mil.teacher import AttentionTeacher

_TANH = r"(attention_a|attention_v|attn_v|attention_tanh)(\.0|\.linear)?"
_GATE = r"(attention_b|attention_u|attn_u|attention_sigmoid)(\.0|\.linear)?"
_SCORE = r"(attention_c|attention_w|attention_weights|attn_w)(\.0)?"
_PLAIN = r"(attention_net\.\d+(\.module)?|attention)"
"""CLAM's attention without a gate: layers 0 and 2, or 3 where there is dropout."""
_EMBED = (
    r"(attention_net(\.module)?\.0|feature_extractor_part2\.0|fc\.0|fc1\.0|fc1|patch_embed\.0|embed\.0|encoder\.0"
    r"|feature\.0)"
)
_HEAD = r"(classifiers?|head|fc_out|_?fc2)(\.0)?"


def read_teacher(path: Path) -> AttentionTeacher:
    """Weights of `CLAM_SB`, `CLAM_MB` or plain (gated) attention MIL, as a ``.pt`` or ``.safetensors`` state dict.

    Nothing in the file is executed. A head of one output is that of a sigmoid: its class is the second, the first has
    logit 0.

    Raises:
        ValueError: it cannot be read, is no attention MIL, or its parts do not fit; the message has both shapes.
    """
    state = _state(path)
    left = {name for name in state if "instance" not in name}
    tanh, tanh_bias = _layer(state, _TANH, left)
    gate, gate_bias = _layer(state, _GATE, left)
    score, _ = _layer(state, _SCORE, left)
    if tanh is None:
        tanh, tanh_bias = _layer(state, _PLAIN + r"\.0", left)
        score, _ = _layer(state, _PLAIN + r"\.[23]", left)
    head, head_bias = _heads(state, left)
    missing = [
        name
        for name, part in (("attention's first layer", tanh), ("its last", score), ("classifier", head))
        if part is None
    ]
    if tanh is None or score is None or head is None:
        shown = ", ".join(f"{name} {tuple(value.shape)}" for name, value in list(state.items())[:4])
        raise ValueError(
            f"{path} is no attention MIL that is known here: no {', no '.join(missing)} among {len(state)} tensors "
            f"({shown} ...); give the state dict of CLAM_SB, CLAM_MB or gated attention MIL, or leave teacher.weights "
            "out to train one on the bags"
        )
    embed, embed_bias = _layer(state, _EMBED, left)
    hidden = tanh.shape[1]
    _same(path, "attention's gate and its first layer", None if gate is None else gate.shape, tanh.shape)
    _same(path, "attention's last and first layer", (score.shape[1],), (tanh.shape[0],))
    _same(path, "the classifier's input and the attention's", (head.shape[1],), (hidden,))
    if embed is not None:
        _same(path, "the attention's input and the first layer's output", (hidden,), (embed.shape[0],))
    if left:
        raise ValueError(
            f"{path} has layers that attention MIL, as it is known here, has not ({', '.join(sorted(left)[:4])}): "
            "without them it would be another model; leave teacher.weights out to train one on the bags"
        )
    branches = score.shape[0]
    if len(head) == 1:  # of a sigmoid
        head = torch.cat([torch.zeros_like(head), head])
        head_bias = None if head_bias is None else torch.cat([torch.zeros_like(head_bias), head_bias])
    classes = len(head)
    if branches not in (1, classes):
        raise ValueError(
            f"{path}: {branches} attentions and {classes} classes do not fit: one attention, or one a class; give the "
            "weights of one model"
        )
    sizes = TeacherSizes(
        members=1,
        dim=hidden if embed is None else embed.shape[1],
        hidden=0 if embed is None else hidden,
        gates=len(tanh),
        branches=branches,
        classes=classes,
        gated=gate is not None,
    )
    teacher = AttentionTeacher(sizes)
    with torch.no_grad():
        if embed is not None:
            teacher.embed.copy_(embed[None])
            _bias(teacher.embed_bias, embed_bias)
        teacher.tanh.copy_(tanh[None])
        _bias(teacher.tanh_bias, tanh_bias)
        if gate is not None:
            teacher.gate.copy_(gate[None])
            _bias(teacher.gate_bias, gate_bias)
        teacher.score.copy_(score[None])
        weight = teacher.weight.view(branches, classes, hidden)
        if branches == 1:
            weight[0].copy_(head)
        else:  # each class is told by its own attention
            weight[torch.arange(classes), torch.arange(classes)] = head
        if head_bias is not None:
            teacher.bias.copy_(head_bias)
    return teacher


def _bias(target: Tensor, value: Tensor | None) -> None:
    if value is not None:
        target.copy_(value.reshape(target.shape))


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, without the wrappings that trainers put around them."""
    try:
        open_regular(path).close()  # whose errors say why
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise ValueError(f"there is no file {path}: correct teacher.weights") from exc
    except OSError as exc:
        raise ValueError(f"cannot read {path}: {refusal(exc, path, writing=False)}") from exc
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise ValueError(
            f"{path} is no file of weights only ({reason}): save the model's state dict, "
            "torch.save(model.state_dict(), path)"
        ) from exc
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}, no state dict: save model.state_dict()")
    state = {str(k): v.float() for k, v in found.items() if isinstance(v, Tensor) and v.is_floating_point()}
    lost = next((name for name, value in state.items() if not bool(value.isfinite().all())), None)
    if lost is not None:
        raise ValueError(f"{path}: {lost} has values that are no finite numbers: give the weights of another epoch")
    return state


def _matching(state: Mapping[str, Tensor], pattern: str) -> list[tuple[str, Tensor]]:
    """Tensors whose whole name, but for what stands before it, is the pattern's."""
    whole = re.compile(rf"(^|.*\.){pattern}$", re.IGNORECASE)
    return [(name, value) for name, value in state.items() if whole.match(name) and "instance" not in name]


def _heads(state: Mapping[str, Tensor], left: set[str]) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of the classifier, whose classes may be layers of their own."""
    each = [
        _layer(state, rf"classifiers\.{i}", left) for i in range(len(_matching(state, r"classifiers\.\d+\.weight")))
    ]
    weights = [weight for weight, _ in each if weight is not None]
    biases = [bias for _, bias in each if bias is not None]
    if len(weights) > 1:
        return torch.cat(weights), torch.cat(biases) if len(biases) == len(weights) else None
    return (weights[0], biases[0] if biases else None) if weights else _layer(state, _HEAD, left)


def _layer(state: Mapping[str, Tensor], pattern: str, left: set[str]) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of the one linear layer of this name, which are left no more; none where there is none."""
    found = [(name, value) for name, value in _matching(state, pattern + r"\.weight") if value.ndim == 2]
    if not found:
        return None, None
    name, weight = found[0]
    bias = name.removesuffix("weight") + "bias"
    left -= {name, bias}
    return weight, state.get(bias)


def _same(path: Path, what: str, one: Any, other: Any) -> None:
    if one is not None and tuple(one) != tuple(other):
        raise ValueError(
            f"{path}: {what} do not fit, found {tuple(one)} and {tuple(other)}: its tensors are of two models; give "
            "the weights of one"
        )
