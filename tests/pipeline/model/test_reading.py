"""What a model reads becomes tensors: all slides' pixels in one computation, in the order asked for."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import torch

from pipeline.model.reading import image, read_together, walk

CPU = torch.device("cpu")


def test_pixels_of_all_slides_come_from_one_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    slides = [np.arange(10 * 4 * 4 * 3, dtype=np.uint8).reshape(10, 4, 4, 3) + k for k in (0, 100)]
    asked = [
        (lambda cells, s=s: da.from_array(s[cells], chunks=1), torch.tensor(c))
        for s, c in zip(slides, ([3, 1], [9]), strict=True)
    ]
    calls = []
    compute = dask.compute
    monkeypatch.setattr(dask, "compute", lambda *lazy, **options: calls.append(len(lazy)) or compute(*lazy, **options))
    first, second = read_together(asked, CPU)
    assert calls == [2]
    assert np.array_equal(first.numpy(), slides[0][[3, 1]])
    assert np.array_equal(second.numpy(), slides[1][[9]])


def test_an_image_has_its_channels_first_and_white_is_one() -> None:
    rgb = np.zeros((2, 5, 7, 3), np.uint8)
    rgb[1, 4, 6] = (255, 0, 51)
    found = image(rgb, CPU)
    assert found.shape == (2, 3, 5, 7)
    assert found[1, :, 4, 6].tolist() == pytest.approx([1, 0, 0.2])


def test_a_walk_is_made_once() -> None:
    assert walk(5, 7) is walk(5, 7)
