"""What the tissue of a made-up slide looks like: the ordinary, dense blobs, and spots hidden from a thumbnail."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.demo.scene import MPP, Blob, Field
from pipeline.demo.texture_layers import Block, Layer, ramp, smooth_noise
from pipeline.demo.textures import STEPS, dots, light, restained, shades, structure, tinted, without_detail

LESION_SCALE, DECOY_SCALE = 2.0, 0.5
"""Magnification of the source's structures inside a lesion and inside a decoy."""
LESION_CUTOFF, DECOY_CUTOFF = 3.6, 5.8
"""Level-0 pixels: slower variation is removed. Chosen so that 8 um means of both textures spread equally."""
HIDDEN_LESION_CUTOFF, HIDDEN_DECOY_CUTOFF = 1.8, 7.0
"""The same inside hidden spots: apart enough for a small encoder to learn from slide labels."""
HIDDEN_DECOY_CONTRAST = 0.5
"""Contrast of a decoy's detail inside hidden spots, that of a lesion being 1: what a small encoder learns first."""

_SMOOTH = 12.0  # level-0 pixels; makes room for the dots, yet is too little for a thumbnail to notice
_SPACING = 18.0 / MPP  # level-0 pixels between the middles of dots
_DOTS = np.clip((STEPS - 0.4) / 0.2, 0, 1)  # how much of the detail shows; it is dark, so there is room for contrast
_DETAIL = light(2.2 * np.clip((STEPS - 0.35) / 0.3, 0, 1))
_MEAN = 1 - _DOTS.mean() * (1 - _DETAIL.mean(axis=0))  # of the light in a spot, by colour
_BRIGHTEST = 250  # of any colour in a spot


@dataclass(frozen=True, slots=True)
class Tissue:
    """Ordinary tissue: two layers of the real image, each showing where the other does not."""

    layers: tuple[Layer, Layer]
    mix: Field  # coarse: below 0 the first layer shows, above it the second

    @staticmethod
    def random(rng: np.random.Generator, shape: tuple[int, int]) -> Tissue:
        """Draw tissue for coarse fields of ``shape``."""
        first, second = (Layer.random(rng, restained(rng), shape, bend=100) for _ in range(2))
        return Tissue((first, second), smooth_noise(rng, shape, 4.0))

    def smoothed(self) -> Tissue:
        """The same tissue at the same place without its detail; what a thumbnail shows of it does not change."""
        first, second = (replace(layer, texels=without_detail(layer.texels, _SMOOTH)) for layer in self.layers)
        return replace(self, layers=(first, second))

    def sample(self, block: Block) -> Field:
        """Colours (height, width, 3) in 0-255 of the pixels of a block, looking up only what shows."""
        first, second = self.layers
        alpha = ramp(block.upsample(self.mix) * 200, 12)
        if alpha.max() <= 0:
            return first.sample(block)
        if alpha.min() >= 1:
            return second.sample(block)
        under = first.sample(block)
        return under + alpha[..., None] * (second.sample(block) - under)


@dataclass(frozen=True, slots=True)
class DenseBlob:
    """A blob of dense blue that any thumbnail shows; only detail tells whether it is a lesion."""

    blob: Blob
    layer: Layer
    dense: Field  # coarse: how much darker than usual

    @staticmethod
    def random(rng: np.random.Generator, blob: Blob, dense: Field, *, is_lesion: bool) -> DenseBlob:
        """Draw what fills a blob."""
        scale, cutoff = (LESION_SCALE, LESION_CUTOFF) if is_lesion else (DECOY_SCALE, DECOY_CUTOFF)
        texels = tinted(rng, structure(scale, cutoff))
        return DenseBlob(blob, Layer.random(rng, texels, dense.shape, bend=20), dense)

    def sample(self, block: Block) -> Field:
        """Colours (height, width, 3) in 0-255 of the pixels of a block."""
        return self.layer.sample(block) * (1 - 0.05 * block.upsample(self.dense)[..., None])


@dataclass(frozen=True, slots=True)
class HiddenSpot:
    """A spot that keeps the mean colour of the tissue around every point, and so stays out of a thumbnail.

    ``colour = smoothed * (1 + c * (light / mean - 1))`` with ``light = 1 - dots * (1 - detail)``: bright between the
    dots, and inside them as bright as the detail lets through. The contrast ``c <= 1`` keeps the brightest from being
    cut off. The dots, 18 um apart, show at an intermediate level that there is a spot; the detail, crisp clumps or
    fainter patches of fine grain, shows at full resolution whether it is a lesion, and less surely at 4 um too.
    """

    blob: Blob
    tissue: Tissue  # smoothed
    dots: Layer
    detail: Layer

    @staticmethod
    def random(rng: np.random.Generator, blob: Blob, smoothed: Tissue, *, is_lesion: bool) -> HiddenSpot:
        """Draw what fills a spot in tissue of which the smoothed version is given."""
        scale, cutoff = (LESION_SCALE, HIDDEN_LESION_CUTOFF) if is_lesion else (DECOY_SCALE, HIDDEN_DECOY_CUTOFF)
        mean, contrast = _DETAIL.mean(axis=0), 1.0 if is_lesion else HIDDEN_DECOY_CONTRAST
        detail = shades(mean + contrast * (_DETAIL - mean))[structure(scale, cutoff)]
        texels = shades(np.repeat(_DOTS[:, None], 3, axis=1))[dots(_SPACING)], detail
        layers = (Layer.random(rng, t, smoothed.mix.shape, bend=20) for t in texels)
        return HiddenSpot(blob, smoothed, *layers)

    def sample(self, block: Block) -> Field:
        """Colours (height, width, 3) in 0-255 of the pixels of a block."""
        smooth = self.tissue.sample(block)
        passed = 1 - self.dots.sample(block) / 255 * (1 - self.detail.sample(block) / 255)
        contrast = ((_BRIGHTEST / smooth - 1) / (1 / _MEAN - 1)).clip(0, 1)
        # rendering drops fractions at last: unrounded, all of the spot would be half a step darker
        return np.asarray(np.rint(smooth * (1 + contrast * (passed / _MEAN - 1))), np.float32)
