"""Slides that the tests make for themselves, and the real ones where they are at hand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from makers import AWKWARD, ROOT, tissue_pixels, write_slide

import stages.pyramid.layout
from pipeline.model.checkpoint import save_model
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import ModelSpec

# The same examples in every run, and no time limit on each: machines that test are often busy.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")
# The tests' tensors are small: threads gain nothing, and on a busy machine each waits for the other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides, or a visible skip."""
    folder = Path(os.environ.get("SACCADE_DATA", ROOT / "../shared/data")).resolve()
    if not (folder / "slides").is_dir():
        pytest.skip(f"no real slides at {folder}: set SACCADE_DATA")
    return folder


@pytest.fixture(scope="session")
def slides_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small pyramidal slides that no test may change: odd sizes, two tile sizes, two encodings."""
    folder = tmp_path_factory.mktemp("slides")
    write_slide(folder / "even.tif", tissue_pixels(2048, 1536))
    write_slide(folder / "odd.tif", tissue_pixels(1803, 2401), tile=240, factor=4, levels=2)
    write_slide(folder / "plain.tif", tissue_pixels(1301, 1203), compression="deflate")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights: what a run does is the same whatever the model knows."""
    spec = ModelSpec(
        classes=("normal", "tumour"),
        attention_mpp=8.0,
        patch_mpp=0.5,
        patch_px=64,
        attention="learned",
        encoder="small",
        dim=16,
        scheme="systematic",
        samples=16,
    )
    torch.manual_seed(0)
    model = AttentionSampler(spec)
    for parameter in model.attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(model, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of an awkward name."""
    path = tmp_path / AWKWARD
    path.mkdir()
    return path


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shards from a small slide."""
    for side in ("SHARD_SIDE", "JPEG_SHARD_SIDE"):
        monkeypatch.setattr(stages.pyramid.layout, side, 512)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)
