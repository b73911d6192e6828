"""One JPEG tile: exact, or an error."""

from __future__ import annotations

import io

import numpy as np
import pytest
from makers import tissue_pixels
from PIL import Image

from stages.slide import jpeg


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_blank_tiles_are_not_taken_for_holes(optimize: bool, progressive: bool) -> None:
    """With tables made for it, a tile of one colour is compressed to zeros; it decodes, and so does one half blank."""
    zeros = 0
    for grey in (0, 128, 244, 255):
        for quality in (10, 75, 100):
            image = tissue_pixels(256, 256, margin=0)
            image[:128] = grey
            for pixels in (image, np.full_like(image, grey)):
                file = io.BytesIO()
                Image.fromarray(pixels).save(
                    file, "JPEG", quality=quality, optimize=optimize, progressive=progressive, subsampling="4:2:0"
                )
                zeros += bytes(128) in file.getvalue()
                found = jpeg.decode(file.getvalue(), jpeg.prefix(None, "ycbcr"), (256, 256))
                np.testing.assert_array_equal(found, np.asarray(Image.open(file)))
    assert zeros or not (optimize or progressive)
