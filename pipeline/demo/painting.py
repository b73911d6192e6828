"""The pixels of a made-up slide, and the pyramidal TIFF that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.demo.scene import MPP, Field, Scene
from pipeline.demo.suspects import DenseBlob, HiddenSpot, Tissue
from pipeline.demo.texture_layers import Block, ramp, smooth_noise

_TILE = 256
_BLOCK = 256  # pixels painted at a time
_BACKGROUND = np.array([243, 242, 240], np.int16)


def render(scene: Scene) -> NDArray[np.uint8]:
    """Paint level 0 of a slide, (height, width, 3) uint8, block by block."""
    rng = np.random.default_rng((*scene.seed, 1))
    shape = scene.depth.shape
    ordinary = Tissue.random(rng, shape)
    rough, dense = (smooth_noise(rng, shape, sigma) for sigma in (1.0, 2.0))
    suspects = _suspects(rng, scene, ordinary, dense)
    grain = rng.integers(-2, 3, (_BLOCK, _BLOCK, 1), np.int16)
    image = np.empty((scene.height, scene.width, 3), np.uint8)
    for top in range(0, scene.height, _BLOCK):
        for left in range(0, scene.width, _BLOCK):
            view = image[top : top + _BLOCK, left : left + _BLOCK]
            block = Block(top, left, *view.shape[:2])
            bright = _BACKGROUND + grain[: block.height, : block.width]
            if block.window(scene.depth).max() < -64:
                view[:] = bright
                continue
            ragged = 12 * block.upsample(rough)
            depth = block.upsample(scene.depth) + ragged
            tissue = ordinary.sample(block)
            rim = ragged * (scene.kind != "hidden")  # small spots keep to the outline that is noted
            for suspect in suspects:
                blob = suspect.blob
                alpha = ramp(blob.depth(block.x, block.y) + rim, 8) if block.meets(blob) else np.zeros(1)
                if alpha.any():
                    tissue += alpha[..., None] * (suspect.sample(block) - tissue)
            view[:] = np.clip(bright + ramp(depth, 8)[..., None] * (tissue - bright), 0, 255)
    return image


def _suspects(
    rng: np.random.Generator, scene: Scene, ordinary: Tissue, dense: Field
) -> Sequence[DenseBlob | HiddenSpot]:
    if scene.kind == "hidden":
        smoothed = ordinary.smoothed()
        return [HiddenSpot.random(rng, blob, smoothed, is_lesion=blob in scene.lesions) for blob in scene.suspects]
    return [DenseBlob.random(rng, blob, dense, is_lesion=blob in scene.lesions) for blob in scene.suspects]


def write_slide(path: Path, image: NDArray[np.uint8], *, mpp: float = MPP, quality: int = 85) -> None:
    """Write (height, width, 3) as a tiled JPEG pyramid that OpenSlide opens, each level the 4 x 4 mean of the last."""
    with tifffile.TiffWriter(path) as tif:
        scale = 1
        while True:
            pixels_per_cm = 1e4 / (mpp * scale)
            tif.write(
                image,
                tile=(_TILE, _TILE),
                photometric="rgb",  # of the array; the file holds YCbCr
                compression="jpeg",
                compressionargs={"level": quality},
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(scale > 1),
                metadata=None,
                software=False,
            )
            if max(image.shape[:2]) <= 2 * _TILE:
                return
            image, scale = _quarter(image), scale * 4


def _quarter(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of every 4 x 4 pixels; the edge is repeated where the size is no multiple of 4."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="edge")
    rows = padded.reshape(padded.shape[0] // 4, 4, padded.shape[1], 3).sum(axis=1, dtype=np.uint16)
    total = rows.reshape(rows.shape[0], -1, 4, 3).sum(axis=2, dtype=np.uint16)
    return np.asarray((total + 8) // 16, np.uint8)
