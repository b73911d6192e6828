"""Slides that the tests make for themselves, and the real ones where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from numpy.typing import NDArray

from pipeline.checkpoints import save_model
from pipeline.model import AttentionSampler
from pipeline.values import ModelSpec

ROOT = Path(__file__).parent.parent

# The same examples in every run, and no time limit on each: machines that test are often busy.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")
# The tests' tensors are small: threads gain nothing, and on a busy machine each waits for the other.
torch.set_num_threads(1)


TINY = ModelSpec(
    classes=("a", "b", "c"),
    attention_mpp=8.0,
    patch_mpp=1.0,
    patch_px=32,
    attention="learned",
    encoder="small",
    dim=8,
    scheme="systematic",
    samples=12,
)
"""A model of few weights."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides, or a visible skip."""
    folder = Path(os.environ.get("SACCADE_DATA", ROOT / "../shared/data")).resolve()
    if not (folder / "slides").is_dir():
        pytest.skip(f"no real slides at {folder}: set SACCADE_DATA")
    return folder


def tissue_pixels(width: int, height: int, *, margin: float = 0.2) -> NDArray[np.uint8]:
    """Real stained tissue mirrored over a rectangle, with a bright margin of the given share on every side."""
    piece = skimage.data.immunohistochemistry()
    block = np.concatenate([np.concatenate([piece, piece[:, ::-1]], 1)] * 2)
    block[512:] = block[511::-1]
    reps = (-(-height // 1024), -(-width // 1024), 1)
    image = np.tile(block, reps)[:height, :width].copy()
    y, x = int(height * margin), int(width * margin)
    inside = np.zeros((height, width), bool)
    inside[y : height - y, x : width - x] = True
    image[~inside] = 244
    return image


def write_slide(
    path: Path,
    image: NDArray[np.uint8],
    *,
    mpp: float | None = 0.5,
    tile: int = 256,
    levels: int = 3,
    factor: int = 2,
    compression: str | None = "jpeg",
    photometric: str = "rgb",
    **options: Any,
) -> Path:
    """Write ``image`` as a tiled pyramidal TIFF whose levels drop what ``factor`` leaves over, as scanners do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(levels):
            shrink = factor**level
            h, w = image.shape[0] // shrink, image.shape[1] // shrink
            blocks = image[: h * shrink, : w * shrink].reshape(h, shrink, w, shrink, 3)
            part = blocks.mean((1, 3)).round().astype(np.uint8) if level else image
            density = {} if mpp is None else {"resolution": (1e4 / mpp / shrink,) * 2, "resolutionunit": "CENTIMETER"}
            tiff.write(
                part,
                tile=(tile, tile),
                photometric=photometric,  # of the array: JPEG stores it as YCbCr
                compression=compression,
                compressionargs={"level": 90} if compression == "jpeg" else None,
                subfiletype=int(level > 0),
                metadata=None,
                **density,
                **options,
            )
    return path


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
