"""Any model of timm with weights from here: as a plain pass, headed or not; never random unless asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import pytest
import torch
from encoders import normalised, patches
from safetensors.torch import save_file
from torch import Tensor

from stages.encoder.hub import HubError
from stages.encoder.load import load_backbone
from stages.encoder.weights import WeightsError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def timm() -> Any:
    return encoders.needs("timm", "-e .[timm]")


def alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("model", "size", "colours", "dim"),
    [
        ("resnet18", 96, IMAGENET, 512),
        ("vit_tiny_patch16_224", 224, HALVES, 192),
        ("test_convnext", 64, HALVES, 64),
        ("test_vit2", 160, HALVES, 64),
    ],
)
@pytest.mark.parametrize("headed", [True, False])
def test_a_model_gives_what_a_plain_pass_gives(
    tmp_path: Path, timm: Any, model: str, size: int, colours: Any, dim: int, headed: bool
) -> None:
    """By its own normalisation, before its classifier, which the checkpoint may have or not."""
    network = timm.create_model(model, num_classes=7 if headed else 0).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    backbone, batch = load_backbone(f"timm:{model}", weights=tmp_path / "w.pth"), patches(2, size)
    network.reset_classifier(0)
    with torch.no_grad():
        expected = network(normalised(batch, *colours))
    alike(backbone(batch), expected)
    assert backbone.dim == dim
    assert backbone.card.source == "file:w.pth"


def test_it_is_never_random_unless_it_is_asked_for(timm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match=r"timm/resnet18.a1_in1k is not in .*; to fill it: `hf download timm/resnet18"):
        load_backbone("timm:resnet18", hub=tmp_path)
    card = load_backbone("timm:resnet18", weights="random").card
    assert (card.source, card.licence) == ("random", None)


def test_a_folder_of_the_hub_says_which_model_it_is(tmp_path: Path, timm: Any) -> None:
    """Its ``config.json`` gives architecture, arguments and normalisation."""
    options = {"depth": 2, "init_values": 1e-5, "class_token": True}
    network = encoders.random(lambda: timm.create_model("vit_tiny_patch16_224", num_classes=0, **options))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": options,
        "pretrained_cfg": {"mean": [0.7] * 3, "std": [0.2] * 3, "license": "mit"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone, batch = load_backbone("timm:hf-hub:someone/something", weights=tmp_path), patches(1, 224)
    with torch.no_grad():
        alike(backbone(batch), network(normalised(batch, (0.7,) * 3, (0.2,) * 3)))
    assert (backbone.card.source, backbone.card.licence) == ("hub:someone/something", "mit")


def test_a_release_asked_for_through_timm_is_called_as_its_authors_do(tmp_path: Path) -> None:
    save_file(encoders.timm_release("h0-mini").state_dict(), tmp_path / "w.safetensors")
    card = load_backbone("timm:hf-hub:bioptimus/H0-mini", weights=tmp_path / "w.safetensors").card
    assert (card.name, card.dim, card.readout) == ("h0-mini", 1536, "cls+mean")


def test_weights_of_dinov2s_own_layout_fit_timms_model(tmp_path: Path, timm: Any) -> None:
    """As Meta names and trains them: a mask token, blocks in chunks, a position for the class token."""
    network = encoders.random(
        lambda: timm.create_model("vit_small_patch14_dinov2", num_classes=0, depth=2, img_size=224)
    )
    own = {
        name.replace("blocks.0.", "blocks.0.0.").replace("blocks.1.", "blocks.0.1."): tensor
        for name, tensor in network.state_dict().items()
    }
    torch.save(
        {"teacher": {f"backbone.{name}": t for name, t in own.items()} | {"backbone.mask_token": torch.zeros(1, 384)}},
        tmp_path / "t.pth",
    )
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "vit_small_patch14_dinov2", "model_args": {"depth": 2, "img_size": 224}})
    )
    backbone, batch = load_backbone("timm:hf-hub:a/b", weights=tmp_path / "t.pth"), patches(1, 224)
    with torch.no_grad():
        alike(backbone(batch), network(normalised(batch, *IMAGENET)))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("resnet34", r"does not fit ResNet: \d+ tensors that the network does not have, first layer1.2"),
        ("resnet50", r"does not fit ResNet: .*(missing|has shape)"),
        ("vit_tiny_patch16_224", r"does not fit ResNet: \d+ of the network's \d+ tensors are missing"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, timm: Any, weights: str, words: str) -> None:
    torch.save(timm.create_model(weights).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=words):
        load_backbone("timm:resnet18", weights=tmp_path / "w.pth")


def test_its_blocks_learn_from_the_last(timm: Any) -> None:
    backbone = load_backbone("timm:resnet18", weights="random").unfreeze(last=1)
    assert {
        name.partition(".conv")[0].partition(".bn")[0]
        for name, p in backbone.body.named_parameters()
        if p.requires_grad
    } == {"layer4.1"}
    backbone.checkpoint_gradients().train()
    assert not backbone.body.bn1.training


def test_tokens_are_of_transformers_only(timm: Any) -> None:
    with pytest.raises(ValueError, match="timm:resnet18 has no tokens of which 'cls' could be the feature"):
        load_backbone("timm:resnet18", weights="random", readout="cls")
    with pytest.raises(ValueError, match="timm:test_vit2 has no class token"):
        load_backbone("timm:test_vit2", weights="random", readout="cls")
