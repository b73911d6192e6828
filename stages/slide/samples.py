"""Samples as TIFF stores them, and as RGB: grey, palettes, 9 to 16 bits, transparency; or why they are no colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from stages.slide.channels import EXPORT_CHANNELS
from stages.slide.facts import SlideError
from stages.slide.tiles import WHITE

MAX_SAMPLES = 64
"""Of a pixel; spectral scanners have some thirty."""

_NO_COLOURS = {
    tifffile.PHOTOMETRIC.SEPARATED: "inks (CMYK), whose look depends on a profile",
    tifffile.PHOTOMETRIC.CIELAB: "CIE L*a*b*, whose look depends on a white point",
    tifffile.PHOTOMETRIC.ICCLAB: "CIE L*a*b*, whose look depends on a white point",
    tifffile.PHOTOMETRIC.ITULAB: "CIE L*a*b*, whose look depends on a white point",
    tifffile.PHOTOMETRIC.YCBCR: "YCbCr without JPEG compression",
}
_KINDS = {2: "signed whole numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
_JPEG = {tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG, 33007, 34892}  # decoded as RGB
_CONVERT = "convert it to 8-bit RGB, such as `vips cast`, `vips colourspace` and `vips tiffsave --tile --pyramid`"
MOST_BITS = 128
"""Bits of a sample beyond which a tag is damaged: a complex number of doubles has so many."""
HALF = 2**15


@dataclass(frozen=True, slots=True)
class Samples:
    """How decoded samples become RGB.

    Attributes:
        colours: 3 of RGB, 1 of grey or of a palette's index; samples beyond them and alpha are left alone.
        highest: the value of white; None where the file does not say, which `scaled` answers.
        inverted: whether 0 is white.
        palette: RGB of each index, (N, 3), or None.
        alpha: TIFF's `ExtraSamples` of the sample after the colours: 1 already multiplied into them, 2 not, 0 no alpha.
        pixel_bytes: of a pixel before it is compressed.
    """

    colours: int
    highest: int | None
    inverted: bool
    palette: NDArray[np.uint8] | None
    alpha: int
    pixel_bytes: int

    def rgb(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        """(h, w, 3) from (h, w, samples)."""
        colours, alpha = stored[..., : self.colours], stored[..., self.colours : self.colours + 1]
        if self.palette is not None:
            return np.ascontiguousarray(self.palette[np.minimum(colours[..., 0], len(self.palette) - 1)])
        grey = self._bytes(colours)
        if self.inverted:
            grey = 255 - grey
        if self.alpha and alpha.size:
            share = self._bytes(alpha) / 255.0
            own = grey if self.alpha == 1 else grey * share
            grey = np.rint(np.minimum(own + np.array(WHITE) * (1 - share), 255)).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))

    def _bytes(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        if self.highest in (None, 255):
            return values.astype(np.uint8, copy=False)
        scaled = (values.astype(np.uint32) * 255 + self.highest // 2) // self.highest
        pixels: NDArray[np.uint8] = np.minimum(scaled, 255).astype(np.uint8)
        return pixels

    def scaled(self, brightest: int) -> Samples:
        """The same, whose white is known by the brightest value that was seen.

        Raises:
            SlideError: so dark that white cannot be the highest that 16 bits hold.
        """
        if brightest >= HALF:
            return replace(self, highest=2**16 - 1)
        raise SlideError(
            f"its samples have 16 bits, the brightest that was seen is {brightest}, and the file does not say which "
            f"value is white: if it is {2 ** max(8, brightest.bit_length()) - 1}, write that into the tag "
            f"MaxSampleValue (tiffset -s 281 {2 ** max(8, brightest.bit_length()) - 1}), or convert it to 8 bits"
        )


def read_samples(page: Any, *, bits: int | None, channels: int) -> Samples:
    """How a page's samples become RGB.

    Args:
        page: a `tifffile.TiffPage`.
        bits: that hold a value, by other metadata; None where they say nothing.
        channels: pages that are a colour each, or 1.

    Raises:
        SlideError: they do not.
    """
    photometric, stored = page.photometric, page.bitspersample
    kind = _KINDS.get(page.sampleformat)
    if isinstance(stored, tuple) and max(stored) > MOST_BITS:
        raise SlideError(
            f"its tag BitsPerSample, {'/'.join(map(str, stored))}, cannot be: the file is damaged: copy it again"
        )
    if kind is not None or not isinstance(stored, int) or stored not in range(8, 17):
        what = f"{'/'.join(map(str, stored)) if isinstance(stored, tuple) else stored}-bit {kind or 'numbers'}"
        raise SlideError(f"its samples are {what}, no colours of 8 to 16 bits: {_CONVERT}")
    lossy_ycbcr = photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression in _JPEG
    known = {0: 1, 1: 1, 2: 3, 3: 1, 6: 3 if lossy_ycbcr else 0}.get(int(photometric), 0)
    if not known:
        name = _NO_COLOURS.get(photometric, getattr(photometric, "name", str(photometric)))
        raise SlideError(f"its colours are {name}: {_CONVERT}")
    count = page.samplesperpixel
    if not known <= count <= MAX_SAMPLES:
        raise SlideError(f"its pixels have {count} samples, expected {known} of a colour: {_CONVERT}")
    extra = [int(e) for e in page.extrasamples or ()][: count - known]
    if known == 1 and count > 1 and not (extra and extra[0] in (1, 2)):
        raise SlideError(
            f"its pixels have {count} channels that are not said to be red, green and blue: {EXPORT_CHANNELS}"
        )
    return Samples(
        colours=3 if channels == 3 else known,
        highest=_highest(page, stored, bits),
        inverted=photometric == tifffile.PHOTOMETRIC.MINISWHITE,
        palette=_palette(page) if photometric == tifffile.PHOTOMETRIC.PALETTE else None,
        alpha=extra[0] if extra and extra[0] in (1, 2) and channels == 1 else 0,
        pixel_bytes=-(-stored // 8) * (count if page.planarconfig == tifffile.PLANARCONFIG.CONTIG else 1),
    )


def _highest(page: Any, stored: int, bits: int | None) -> int | None:
    """The value of white by what the file states; None where it states nothing of 16 bits.

    Some state the brightest value there is, so what counts is how many bits it has.
    """
    stated: list[int] = [bits] if bits is not None else []
    for name in ("SMaxSampleValue", "MaxSampleValue"):
        value = page.tags.valueof(name)
        highest = max(value) if isinstance(value, tuple) else value
        stated += [highest.bit_length()] if isinstance(highest, int) else []
    fitting = [n for n in stated if 8 <= n <= stored]
    if fitting or stored != 16:
        highest_value: int = 2 ** (fitting[0] if fitting else stored) - 1
        return highest_value
    return None


def _palette(page: Any) -> NDArray[np.uint8]:
    colours = np.asarray(page.colormap).T
    pixels: NDArray[np.uint8] = (colours >> (8 if colours.max() > 255 else 0)).astype(np.uint8)
    return pixels
