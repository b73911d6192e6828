"""The paper's images as the product sees them: places of cells and patches, drawing, training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.paper.config import Networks, Row, Sight, Training
from benchmarks.paper.layers import Convolutions, ink
from benchmarks.paper.views import (
    InkConvolutions,
    build_sampler,
    corners_of,
    padded,
    predict_sampler,
    shrunk,
    train_sampler,
    view_of,
    window_reader,
)
from pipeline.model.values import View

SIGHT = Sight(low_px=20, cell_px=2, patch_px=20, encoder="convolutions")
NETWORKS = Networks(widths=(4, 4, 8), patch_px=20, grid_stride=16)
SCALE = (5.0, 5.0)


def image(number: int, size: int = 100) -> NDArray[np.uint8]:
    """White paper, with a dark square at a random place or without one; the seed is the image's number."""
    pixels = np.full((size, size, 3), 240, np.uint8)
    y, x = np.random.default_rng(number).integers(10, size - 30, 2)
    if number % 2:
        pixels[y : y + 20, x : x + 20] = 30
    return pixels


def squares(number: int, _: torch.Generator | None) -> View:
    px = SIGHT.patch_px
    return view_of(shrunk(image(number), 20), window_reader(padded(image(number), px), px), SIGHT, SCALE)


def test_the_low_view_is_the_area_mean() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(60, 100, 3), dtype=np.uint8)
    means = pixels.reshape(12, 5, 20, 5, 3).mean((1, 3))
    found = shrunk(pixels, 20)
    assert found.shape == (12, 20, 3)
    assert np.abs(found - means).max() <= 1  # each axis is rounded by itself


def test_patches_lie_about_their_cells_and_are_white_beyond_the_image() -> None:
    """Cells of 10 pixels, patches of 20: the first begins 5 pixels before the image, the last ends 5 after it."""
    view = squares(1, None)
    assert view.tissue.shape == (10, 10)
    framed = np.pad(image(1), ((5, 5), (5, 5), (0, 0)), constant_values=255)
    patches = view.patches(np.array([0, 37, 99]))
    for patch, (row, column) in zip(patches, [(0, 0), (3, 7), (9, 9)], strict=True):
        np.testing.assert_array_equal(patch, framed[10 * row : 10 * row + 20, 10 * column : 10 * column + 20])


def test_a_cell_looks_at_its_own_patch() -> None:
    """The pixels that move a cell's logit are spread evenly about the centre of its patch: no stretching."""
    model = build_sampler(Row(title="", kind="ats", samples=2), SIGHT, NETWORKS, scale=5, seed=0)
    for p in model.attention.parameters():
        torch.nn.init.constant_(p, -0.1 if p.ndim == 1 else 0.1)
    rgb = torch.full((3, 20, 20), 0.0, requires_grad=True)
    logits = model.attention(rgb)
    for row, column in ((4, 5), (6, 3)):
        (seen,) = torch.autograd.grad(logits[row, column], rgb, retain_graph=True)
        weight = seen[0] / seen[0].sum()
        centre = np.array([float((weight.sum(1 - axis) * (torch.arange(20) + 0.5)).sum()) for axis in (0, 1)])
        patch = corners_of(np.array([[row, column]]), SIGHT, SCALE)[0] + SIGHT.patch_px / 2
        assert np.abs(5 * centre - patch).max() <= 0.5 * 5 + 0.01  # the net's own margin may be odd


@pytest.mark.parametrize("channels", [1, 3])
def test_the_products_encoder_gets_the_same_ink(channels: int) -> None:
    """Grey images, which are shown to it as black on white, too."""
    convolutions = Convolutions(channels=channels, widths=(4, 4, 8))
    pixels = torch.randint(256, (2, 27, 27, channels), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    shown = pixels if channels == 3 else (255 - pixels).expand(-1, -1, -1, 3)
    found = InkConvolutions(convolutions)(shown.permute(0, 3, 1, 2).float())
    torch.testing.assert_close(found, convolutions.pooled(ink(pixels)))


@pytest.mark.parametrize("encoder", ["small", "convolutions"])
def test_seeds_decide_the_weights(encoder: str) -> None:
    sight = SIGHT.model_copy(update={"encoder": encoder})
    a, b, c = (build_sampler(Row(title="", kind="ats", samples=2), sight, NETWORKS, scale=5, seed=s) for s in (0, 0, 1))
    same, other = (
        all(torch.equal(p, q) for p, q in zip(a.encoder.parameters(), m.encoder.parameters(), strict=True))
        for m in (b, c)
    )
    assert (same, other) == (True, False)


def trained(scheme: str, epochs: int) -> tuple[torch.Tensor, float]:
    """Probabilities of 40 unseen images by ATS-3 that was trained on 24, and its last loss."""
    model = build_sampler(Row(title="", kind="ats", samples=3, scheme=scheme), SIGHT, NETWORKS, scale=5, seed=0)
    training = Training(epochs=epochs, batch_size=8, learning_rate=1e-2, warm_up=2)
    labels = [i % 2 for i in range(24)]
    loss = train_sampler(model, squares, range(24), labels, training, samples=3, seed=0, say=lambda line: None)
    return predict_sampler(model, squares, range(100, 140), samples=3, seed=0, draws=3), loss


@pytest.mark.slow
def test_the_product_learns_where_to_look() -> None:
    probabilities, loss = trained("systematic", 20)
    assert (probabilities.argmax(1) == torch.arange(40) % 2).float().mean() >= 0.95
    assert loss < 0.3


@pytest.mark.parametrize(
    "scheme", ["gumbel", *(pytest.param(name, marks=pytest.mark.slow) for name in ("iid", "topk"))]
)
def test_training_is_the_same_twice(scheme: str) -> None:
    assert torch.equal(trained(scheme, 1)[0], trained(scheme, 1)[0])


def test_averaged_draws_approach_reading_every_cell() -> None:
    model = build_sampler(Row(title="", kind="ats", samples=5), SIGHT, NETWORKS, scale=5, seed=0).eval()
    torch.nn.init.normal_(model.attention.logit.weight)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        few = model([squares(1, None)] * 400, samples=5, generator=generator).logits
        exact = model([squares(1, None)], samples=100, generator=generator).logits[0]
    error = (few.mean(0) - exact).abs() / (few.std(0) / 20)
    assert error.max() < 4


@pytest.mark.parametrize("turn", [True, False])
def test_patches_are_turned_in_training_unless_they_have_an_up(turn: bool) -> None:
    """Images that are black above white, so that a patch as it is read has its dark rows above its light ones."""
    halves = np.full((100, 100, 3), 240, np.uint8)
    halves[:50] = 30
    px = SIGHT.patch_px
    view = view_of(shrunk(halves, 20), window_reader(padded(halves, px), px), SIGHT, SCALE)
    model = build_sampler(Row(title="", kind="ats", samples=20), SIGHT, NETWORKS, scale=5, seed=0)
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    training = Training(epochs=2, batch_size=4)
    train_sampler(
        model, lambda *_: view, range(8), [0, 1] * 4, training, samples=20, seed=0, say=lambda line: None, turn=turn
    )
    inside = torch.cat(seen).float().mean(-1)
    inside = inside[(inside < 250).flatten(1).all(1)]  # not beyond the image
    upright = (inside[:, :10].mean((1, 2)) <= inside[:, 10:].mean((1, 2))).float().mean()
    assert (upright < 1) if turn else (upright == 1)
