"""Patches become unit features, one by one, whatever else is in the batch."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stages.encoder.build import PatchEncoder, build_encoder, unit


def patches(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", [32, 33, 96, 128, 255])
def test_features_have_length_one(size: int) -> None:
    features = build_encoder("small", dim=24)(patches(3, size))
    assert features.shape == (3, 24)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


def test_a_feature_does_not_depend_on_the_rest_of_the_batch() -> None:
    encoder, batch = build_encoder("small", dim=16), patches(6, 64)
    alone = torch.cat([encoder(batch[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(encoder(batch), alone, rtol=1e-4, atol=1e-5)


def test_no_patches_give_no_features() -> None:
    assert build_encoder("small", dim=16)(patches(0, 64)).shape == (0, 16)


def test_every_parameter_gets_a_gradient() -> None:
    encoder = build_encoder("small", dim=16)
    (encoder(patches(8, 64)) * torch.randn(16, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_unit_has_a_finite_gradient_at_zero() -> None:
    zero = torch.zeros(2, 5, requires_grad=True)
    unit(zero).sum().backward()
    assert zero.grad is not None
    assert torch.isfinite(zero.grad).all()


@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 64, 64, 3)])
def test_patches_of_another_shape_or_type_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected patches \(N, P, P, 3\) of uint8"):
        build_encoder("small", dim=16)(bad)


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown encoder 'large'"):
        build_encoder("large", dim=16)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_local_checkpoint_gives_the_same_features(tmp_path: Path, suffix: str) -> None:
    trained, path = build_encoder("small", dim=16), tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(trained.body.state_dict(), path)
    else:
        save_file(trained.body.state_dict(), path)
    loaded = build_encoder("small", dim=16, pretrained_path=path)
    batch = patches(2, 64)
    torch.testing.assert_close(loaded(batch), trained(batch), rtol=0, atol=0)


def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    save_file(build_encoder("small", dim=8).body.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="does not fit the encoder"):
        build_encoder("small", dim=16, pretrained_path=tmp_path / "weights.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"junk" * 100)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        build_encoder("small", dim=16, pretrained_path=path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(build_encoder("small", dim=16).body, tmp_path / "weights.pt")  # the module, not its weights: a pickle
    with pytest.raises(ValueError, match="expected a state dict"):
        build_encoder("small", dim=16, pretrained_path=tmp_path / "weights.pt")


def test_timm_missing_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"'timm:resnet18' needs timm.*pip install saccade\[timm\]"):
        build_encoder("timm:resnet18", dim=16)


def test_timm_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As beside a torchvision that was built for another torch."""
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(ImportError, match=r"cannot be imported \(operator torchvision::nms does not exist\)"):
        build_encoder("timm:resnet18", dim=16)


# --- timm itself, where it is installed

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
MODELS = [("resnet18", 64, IMAGENET), ("vit_tiny_patch16_224", 224, HALVES)]


@pytest.fixture(scope="module")
def _timm() -> None:
    """Timm can be imported; it needs none of torchvision's compiled operators, but torchvision itself asks for two."""
    if find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install saccade[timm]")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # built for another torch
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


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


def test_a_patchs_feature_never_depends_on_its_batch_not_even_in_training() -> None:
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    encoder = PatchEncoder(body, 8).train()
    patches = torch.randint(256, (5, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    torch.testing.assert_close(encoder(patches)[:1], encoder(patches[:1]))


def test_standardised_features_point_every_way() -> None:
    """What all patches have in common is taken out: before, the mean feature is nearly a unit vector itself."""
    torch.manual_seed(0)
    encoder = build_encoder("small", dim=16)
    patches = torch.randint(256, (64, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    before = encoder(patches).mean(0).norm()
    encoder.standardise(patches)
    features = encoder(patches)
    assert before > 0.9
    assert features.mean(0).norm() < 0.3
    torch.testing.assert_close(features.norm(dim=1), torch.ones(64), rtol=0, atol=1e-4)
