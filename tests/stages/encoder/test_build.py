"""Encoders by name, and which checkpoints they take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stages.encoder.build import build_encoder


def patches(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


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
