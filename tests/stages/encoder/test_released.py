"""Released encoders with random weights in their exact layouts: the same features as a plain forward pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import encoders
import pytest
import torch
from encoders import TIMM, TRANSFORMERS, normalised, patches, timm_release, transformers_release
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.encoder.load import load_backbone
from stages.encoder.registry import release
from stages.encoder.weights import WeightsError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
H_OPTIMUS = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
HIBOU = (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)
CALLED: dict[str, tuple[tuple[tuple[float, ...], tuple[float, ...]], Callable[[Tensor], Tensor]]] = {
    "uni": (IMAGENET, lambda t: t[:, 0]),
    "uni2-h": (IMAGENET, lambda t: t[:, 0]),
    "virchow": (IMAGENET, lambda t: torch.cat([t[:, 0], t[:, 1:].mean(1)], 1)),
    "virchow2": (IMAGENET, lambda t: torch.cat([t[:, 0], t[:, 5:].mean(1)], 1)),
    "h-optimus-0": (H_OPTIMUS, lambda t: t[:, 0]),
    "h-optimus-1": (H_OPTIMUS, lambda t: t[:, 0]),
    "h0-mini": (H_OPTIMUS, lambda t: torch.cat([t[:, 0], t[:, 5:].mean(1)], 1)),
    "gigapath": (IMAGENET, lambda t: t[:, 0]),
    "gigapath-flash": (IMAGENET, lambda t: t[:, 0]),
    "lunit-s8": (((0.703, 0.536, 0.661), (0.217, 0.261, 0.207)), lambda t: t[:, 0]),
    **{name: (HALVES, lambda t: t[:, 0]) for name in TIMM if name.startswith("kaiko")},
    "phikon": (IMAGENET, lambda t: t[:, 0]),
    "phikon-v2": (IMAGENET, lambda t: t[:, 0]),
    "midnight": (HALVES, lambda t: torch.cat([t[:, 0], t[:, 1:].mean(1)], 1)),
    "hibou-b": (HIBOU, lambda t: t[:, 0]),
    "hibou-l": (HIBOU, lambda t: t[:, 0]),
}
"""How the model cards call each: normalisation, and what of the tokens is the feature."""


def plainly(name: str, network: nn.Module, batch: Tensor) -> Tensor:
    """A plain forward pass, by the model card."""
    (mean, std), readout = CALLED[name]
    pixels = normalised(batch, mean, std)
    with torch.no_grad():
        tokens = network.forward_features(pixels) if name in TIMM else network(pixels).last_hidden_state
        return readout(tokens)


def alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", TIMM)
def test_a_release_of_timms_layout_gives_what_a_plain_pass_gives(tmp_path: Path, name: str) -> None:
    """It has no head; the one block is noted, since the release has more."""
    network, batch = timm_release(name), patches(1, 224)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    backbone = load_backbone(name, weights=tmp_path / "model.safetensors")
    alike(backbone(batch), plainly(name, network, batch))
    row = release(name)
    assert row is not None
    assert backbone.dim == backbone.card.dim == row.dim
    assert (backbone.card.licence, backbone.card.gated) == (row.licence, row.gated)
    assert any(f"depth of {row.size.depth}, these weights have 1" in line for line in backbone.card.notes)
    assert not any("patches" in line or "registers" in line for line in backbone.card.notes)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_release_of_transformers_layout_gives_what_a_plain_pass_gives(tmp_path: Path, name: str) -> None:
    """As its files name the tensors, in the hub's folder, and as version 5 names them in memory."""
    network, batch = transformers_release(name), patches(1, 224)
    network.save_pretrained(tmp_path / "hub")
    torch.save(network.state_dict(), tmp_path / "memory.pt")
    expected = plainly(name, network, batch)
    folder = load_backbone(name, weights=tmp_path / "hub")
    memory = load_backbone(name, weights=tmp_path / "memory.pt")
    alike(folder(batch), expected)
    alike(memory(batch), expected)
    assert folder.card.digest == memory.card.digest


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("hibou-b", "Dinov2WithRegisters", {"image_size": 518, "patch_size": 14}),
        ("phikon", "Dinov2", {"image_size": 512, "patch_size": 16}),
    ],
)
def test_positions_are_resampled_as_the_layouts_own_code_does(
    tmp_path: Path, name: str, kind: str, options: dict[str, int]
) -> None:
    """Pictures of 224 px by weights trained on larger ones: transformers smooths only where there are registers."""
    transformers = encoders.needs("transformers", "transformers")
    config = getattr(transformers, f"{kind}Config")(num_hidden_layers=1, **options)
    network = encoders.random(lambda: getattr(transformers, f"{kind}Model")(config))
    network.save_pretrained(tmp_path)
    alike(load_backbone(name, weights=tmp_path)(patches(1, 224)), plainly(name, network, patches(1, 224)))


@pytest.mark.slow
def test_a_giant_of_full_size_gives_what_a_plain_pass_gives(tmp_path: Path) -> None:
    """H-optimus: 1.1 billion parameters, forty blocks, and nothing to note."""
    network, batch = timm_release("h-optimus-0", depth=None), patches(1, 224)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    backbone = load_backbone("h-optimus-0", weights=tmp_path)
    assert sum(parameter.numel() for parameter in backbone.parameters()) > 1.1e9
    assert backbone.card.notes == ()
    alike(backbone(batch), plainly("h-optimus-0", network, batch))


@pytest.fixture(scope="module")
def kaiko() -> nn.Module:
    """A small one."""
    return timm_release("kaiko-s16")


WRAPPED: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "bare": lambda state: state,
    "module.": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "model.backbone.": lambda state: {f"model.backbone.{name}": tensor for name, tensor in state.items()},
    "nested": lambda state: {"epoch": 3, "state_dict": state},
    "teacher": lambda state: {
        "teacher": {**{f"backbone.{n}": t for n, t in state.items()}, "dino_head.mlp.0.weight": torch.zeros(2, 2)},
        "student": {"backbone.cls_token": torch.zeros(1)},
    },
    "both": lambda state: {
        **{f"student.{name}": torch.zeros_like(tensor) for name, tensor in state.items()},
        **{f"teacher.{name}": tensor for name, tensor in state.items()},
    },
    "headed": lambda state: {**state, "head.weight": torch.zeros(1000, 384), "head.bias": torch.zeros(1000)},
    "half": lambda state: {name: tensor.double() for name, tensor in state.items()},
}


@pytest.mark.parametrize("way", WRAPPED)
def test_the_same_weights_are_the_same_however_they_were_saved(tmp_path: Path, kaiko: nn.Module, way: str) -> None:
    torch.save(WRAPPED[way](kaiko.state_dict()), tmp_path / "checkpoint.pth")
    save_file(kaiko.state_dict(), tmp_path / "plain.safetensors")
    found = load_backbone("kaiko-s16", weights=tmp_path / "checkpoint.pth").card
    assert found.digest == load_backbone("kaiko-s16", weights=tmp_path / "plain.safetensors").card.digest


def test_another_size_of_picture_is_taken_where_the_network_can(tmp_path: Path, kaiko: nn.Module) -> None:
    """As it is where it is a multiple of its patch, else resized to the nearest."""
    save_file(kaiko.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone("kaiko-s16", weights=tmp_path / "w.safetensors")
    alike(backbone(patches(1, 256)), plainly("kaiko-s16", kaiko, patches(1, 256)))
    assert backbone(patches(1, 250)).shape == (1, 384)
    assert backbone.prepare(patches(1, 250)).shape == (1, 3, 256, 256)


def test_gigapath_sees_the_centre_of_its_tile(tmp_path: Path) -> None:
    """224 of 256 pixels, in patches of 16 although its architecture's name says 14."""
    network = timm_release("gigapath")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    backbone, tiles = load_backbone("gigapath", weights=tmp_path / "w.safetensors"), patches(1, 256)
    alike(backbone(tiles), plainly("gigapath", network, tiles[:, 16:240, 16:240]))
    assert backbone.card.least == 16


def test_the_authors_colours_win_over_those_of_the_base_architecture(tmp_path: Path) -> None:
    network = timm_release("h-optimus-0")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "vit_giant_patch14_reg4_dinov2", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_backbone("h-optimus-0", weights=tmp_path).card.mean == H_OPTIMUS[0]


def test_where_sources_disagree_the_models_own_configuration_decides(tmp_path: Path) -> None:
    """Without one, the doubt is said with every result."""
    save_file(timm_release("lunit-s8").state_dict(), tmp_path / "model.safetensors")
    alone = load_backbone("lunit-s8", weights=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.7] * 3, "std": [0.2] * 3}}))
    told = load_backbone("lunit-s8", weights=tmp_path)
    assert (told.card.mean, told.card.std) == ((0.7,) * 3, (0.2,) * 3)
    assert any("sources disagree" in line for line in alone.card.misfit(px=224, mpp=0.5))
    assert not any("sources disagree" in line for line in told.card.misfit(px=224, mpp=0.5))


def test_what_the_shapes_say_counts_and_is_said(tmp_path: Path) -> None:
    """A network with patches of 14 px under a name that is known with 16."""
    timm = encoders.needs("timm", "-e .[timm]")
    network = encoders.random(
        lambda: timm.create_model("vit_small_patch14_dinov2", num_classes=0, depth=1, img_size=224)
    )
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone("kaiko-s16", weights=tmp_path / "w.safetensors")
    alike(backbone(patches(1, 224)), plainly("kaiko-s16", network, patches(1, 224)))
    assert "kaiko-s16 is known with patches of 16, these weights have 14: what they have counts" in backbone.card.notes


def _without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("uni2-h", dict, r"is not uni2-h: expected 1536 values a token, found 384"),
        ("kaiko-s16", _without("norm.weight"), r"1 of the network's \d+ tensors are missing, first norm.weight"),
        ("kaiko-s16", _without("pos_embed"), r"it has no pos_embed"),
        (
            "kaiko-s16",
            lambda s: {**s, "blocks.0.mlp.norm.weight": torch.ones(4)},
            r"does not have, first blocks.0.mlp.norm",
        ),
        ("kaiko-s16", lambda s: {**s, "norm.weight": torch.ones(4)}, r"norm.weight has shape 4, the network's 384"),
        ("kaiko-s16", lambda s: {**s, "pos_embed": torch.ones(1, 11, 384)}, r"position embedding of 11 tokens"),
        ("genbio-pathfm", dict, r"expected 1536 values a token.*export it to ONNX"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path,
    kaiko: nn.Module,
    name: str,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    words: str,
) -> None:
    torch.save(change(dict(kaiko.state_dict())), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=words) as caught:
        load_backbone(name, weights=tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


def test_each_colour_alone_is_a_picture_of_its_own(tmp_path: Path) -> None:
    """GenBio-PathFM: a network of one channel, the class tokens of red, green and blue one after the other."""
    timm = encoders.needs("timm", "-e .[timm]")
    options = {**encoders.GIANT, "patch_size": 16, "depth": 1, "in_chans": 1, "reg_tokens": 4}
    network = encoders.random(
        lambda: timm.create_model("vit_giant_patch14_224", num_classes=0, **options, **encoders.swiglu())
    )
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    backbone, batch = load_backbone("genbio-pathfm", weights=tmp_path / "w.safetensors"), patches(2, 224)
    pixels = normalised(batch, (0.697, 0.575, 0.728), (0.188, 0.240, 0.187))
    with torch.no_grad():
        each = [network.forward_features(pixels[:, channel : channel + 1])[:, 0] for channel in range(3)]
    alike(backbone(batch), torch.cat(each, 1))
    assert backbone.dim == 4608


def test_another_read_out_may_be_asked_for(tmp_path: Path) -> None:
    network = timm_release("virchow2")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone("virchow2", weights=tmp_path / "w.safetensors", readout="cls")
    alike(backbone(patches(1, 224)), plainly("virchow2", network, patches(1, 224))[:, :1280])
    assert backbone.dim == 1280


def test_random_weights_are_no_release() -> None:
    with pytest.raises(ValueError, match="kaiko-s16 with random weights is not kaiko-s16"):
        load_backbone("kaiko-s16", weights="random")


def test_its_last_blocks_learn(tmp_path: Path) -> None:
    """And what comes after them; computed again for the gradient, they give the same one."""
    save_file(timm_release("kaiko-s16", depth=3).state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone("kaiko-s16", weights=tmp_path / "w.safetensors").unfreeze(last=1).train()
    learning = {
        name.split(".")[1] + "." + name.split(".")[2] for name, p in backbone.body.named_parameters() if p.requires_grad
    }
    assert learning == {"blocks.2", "norm.weight", "norm.bias"}
    gradients = []
    for again in (False, True):
        backbone.zero_grad()
        backbone.checkpoint_gradients(again)(patches(1, 64)).square().sum().backward()
        gradients.append(backbone.body.vit.norm.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])
