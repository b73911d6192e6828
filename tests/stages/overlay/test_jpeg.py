"""A picture is as good as its share of bytes allows."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from stages.overlay.jpeg import ALWAYS, BYTES_PER_PIXEL, LARGE, PLAIN, SIZES, encode


def tables(data: bytes) -> dict[int, list[int]]:
    """What tells a JPEG's quality."""
    with Image.open(io.BytesIO(data)) as image:
        return image.quantization


def best(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=max(SIZES))
    return file.getvalue()


def test_a_picture_with_few_details_has_the_best_quality() -> None:
    rows, columns = np.mgrid[:1000, :1200]
    plain = Image.fromarray(np.stack([rows // 8, columns // 8, rows // 8], axis=-1).astype(np.uint8))
    assert tables(encode(plain)) == tables(best(plain))


def test_a_picture_full_of_details_keeps_within_its_bytes_and_no_farther_than_needed() -> None:
    noise = np.random.default_rng(0).integers(80, 200, (400, 480, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((1200, 1000), Image.Resampling.BICUBIC)
    share = len(encode(picture)) / (1200 * 1000 * BYTES_PER_PIXEL)
    assert 0.6 < share <= 1


def test_a_small_picture_is_not_spoilt_for_bytes() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    assert tables(encode(noise)) == tables(best(noise))
    assert len(encode(noise)) < ALWAYS


def test_a_large_picture_is_as_good_as_a_small_one_for_little_more() -> None:
    """It is coded without knowing all of it first."""
    noise = np.random.default_rng(0).integers(80, 200, (300, 300, 3), dtype=np.uint8)
    part = np.asarray(Image.fromarray(noise).resize((900, 900), Image.Resampling.BICUBIC))
    picture = np.tile(part, (4, 3, 1))
    assert picture[..., 0].size >= LARGE
    small, large = encode(picture[:1800]), encode(picture)
    assert tables(large)[0][0] <= tables(small)[0][0]
    assert 0.6 * PLAIN < len(large) / (picture[..., 0].size * BYTES_PER_PIXEL) <= PLAIN


def test_what_no_quality_makes_small_enough_has_the_worst() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    file = io.BytesIO()
    noise.save(file, format="JPEG", quality=min(SIZES))
    assert tables(encode(noise, most=1)) == tables(file.getvalue())
