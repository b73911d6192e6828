"""What is said where timm is missing, and timm itself where it is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stages.encoder.build import build_encoder


def patches(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


def test_timm_missing_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"'timm:resnet18' needs timm.*pip install -e '\.\[timm\]'"):
        build_encoder("timm:resnet18", dim=16)


def test_timm_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('it was built\\nfor another Python')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(
        ImportError, match=r"cannot be imported \(it was built for another Python\); install it again: "
    ):
        build_encoder("timm:resnet18", dim=16)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
MODELS = [("resnet18", 64, IMAGENET), ("vit_tiny_patch16_224", 224, HALVES)]


@pytest.fixture(scope="module")
def _timm() -> None:
    """Timm can be imported, whether or not its torchvision fits torch."""
    if find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install -e .[timm]")


@pytest.mark.usefixtures("_timm")
@pytest.mark.parametrize(("model", "size", "statistics"), MODELS)
def test_a_timm_model_gives_unit_features_of_the_length_asked_for(
    model: str, size: int, statistics: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    """What it is given is normalised by the model's own mean and standard deviation."""
    encoder, batch = build_encoder(f"timm:{model}", dim=24).eval(), patches(3, size)
    assert encoder.dim == 24
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in statistics)
    with torch.no_grad():
        features = encoder(batch)
        expected = encoder.body((batch.permute(0, 3, 1, 2) / 255 - mean) / std)
    assert features.shape == (3, 24)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(features, torch.nn.functional.normalize(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("_timm")
def test_once_trained_a_feature_of_timm_does_not_depend_on_the_rest_of_the_batch() -> None:
    encoder, batch = build_encoder("timm:resnet18", dim=16).eval(), patches(4, 64)
    with torch.no_grad():
        alone = torch.cat([encoder(batch[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(encoder(batch), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_timm")
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_local_checkpoint_of_timm_gives_the_same_features(tmp_path: Path, suffix: str) -> None:
    trained, path = build_encoder("timm:resnet18", dim=16), tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(trained.body.state_dict(), path)
    else:
        save_file(trained.body.state_dict(), path)
    batch = patches(2, 64)
    with torch.no_grad():
        features = trained.eval()(batch)
        loaded, other = (
            build_encoder("timm:resnet18", dim=16, pretrained_path=path),
            build_encoder("timm:resnet18", dim=16),
        )
        torch.testing.assert_close(loaded.eval()(batch), features, rtol=0, atol=0)
        assert (other.eval()(batch) - features).abs().max() > 0.01
    with pytest.raises(ValueError, match="does not fit the encoder"):
        build_encoder("timm:resnet18", dim=8, pretrained_path=path)


@pytest.mark.usefixtures("_timm")
@pytest.mark.parametrize(
    ("name", "words"), [("resnet1", r"near it: .*resnet18"), ("magic", "none with that in its name")]
)
def test_an_unknown_model_of_timm_is_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"timm has no model '{name}'; .*{words}"):
        build_encoder(f"timm:{name}", dim=16)
