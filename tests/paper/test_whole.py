"""The models that read everything: same convolutions alone and in a whole image, shared convolutions, training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.costs import interleaved_ms, peak_bytes, saved_bytes
from benchmarks.paper.config import Networks, Row, Training
from benchmarks.paper.layers import Convolutions, ink, read_patches
from benchmarks.paper.whole import Batch, FullCNN, GatedMIL, build_whole, fit_whole, predict_whole

NETWORKS = Networks(widths=(4, 4, 8), patch_px=27, grid_stride=16)
KINDS = [Row(title="", kind="cnn"), Row(title="", kind="mil"), Row(title="", kind="mil", share=0.25)]


def batch(size: int = 110, n: int = 3, seed: int = 0) -> Batch:
    return Batch(torch.randint(256, (n, size, size, 3), generator=generator(seed), dtype=torch.uint8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_ink_is_zero_on_background_and_adds_up_as_optical_density() -> None:
    pixels = torch.tensor([255, 127, 63], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert torch.allclose(ink(pixels).flatten(), torch.tensor([0.0, 1.0, 2.0]) * math.log(2))
    assert ink(torch.zeros(1, 2, 2, 1)).max() == 0


def test_ink_mixes_colours_as_a_row_vector_and_leaves_the_pixels_alone() -> None:
    pixels = (torch.rand(2, 3, 5, 6, generator=generator()) * 255).movedim(1, -1)  # a layout that needs no copy
    before, colours = pixels.clone(), torch.rand(2, 3, 3, generator=generator(1))
    mixed = ink(pixels, colours).movedim(1, -1)
    assert torch.allclose(mixed, torch.einsum("bhwc,bcd->bhwd", ink(pixels).movedim(1, -1), colours), atol=1e-5)
    assert torch.equal(pixels, before)


def test_patches_are_read_where_their_corners_say() -> None:
    images = batch().images
    corners = torch.tensor([[[0, 0], [83, 5]], [[3, 4], [10, 83]], [[1, 1], [2, 2]]])
    patches = read_patches(images, corners, 27)
    assert torch.equal(patches[1, 1], images[1, 10:37, 83:110])
    assert torch.equal(patches[0, 1], images[0, 83:110, 5:32])


def test_a_patch_has_the_same_map_alone_and_in_the_whole_image() -> None:
    convolutions = Convolutions(widths=(4, 4, 8))
    x = ink(batch().images)
    whole, part = convolutions.layers(x), convolutions.layers(x[:, :, 40:67, 60:87])
    assert torch.allclose(whole[:, :, 10:13, 15:18], part, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("size", [110, 113])
def test_shared_convolutions_give_the_same_mil(pool: str, size: int) -> None:
    encoder = Convolutions(widths=(4, 4, 8), pool=pool)  # type: ignore[arg-type]
    plain = GatedMIL(encoder, 2, patch_px=27, grid_stride=16)
    shared = GatedMIL(encoder, 2, patch_px=27, grid_stride=16, shared=True)
    shared.load_state_dict(plain.state_dict())
    a, b = plain(batch(size), generator()), shared(batch(size), generator())
    assert torch.allclose(a.logits, b.logits, atol=1e-5)
    assert torch.allclose(a.log_attention, b.log_attention, atol=1e-5)
    with pytest.raises(ValueError, match="multiple of 4"):
        GatedMIL(encoder, 2, patch_px=27, grid_stride=14, shared=True)


@pytest.mark.parametrize("row", KINDS, ids=lambda row: f"{row.kind}-{row.share}")
def test_every_model_trains_all_of_its_parameters(row: Row) -> None:
    model = build_whole(row, NETWORKS, seed=0)
    model.standardise(batch(), generator())
    output = model(batch(), generator())
    assert output.logits.shape == (3, 2)
    if output.log_attention is not None:
        assert torch.allclose(output.log_attention.exp().sum(1), torch.ones(3), atol=1e-5)
    output.logits[:, 0].sum().backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    assert not idle


def squares(items: list[int], _: torch.Generator | None) -> Batch:
    """Images with a dark square at a random place or without one; the seed is the image's number."""
    images = torch.full((len(items), 100, 100, 3), 240, dtype=torch.uint8)
    for image, i in zip(images, items, strict=True):
        y, x = torch.randint(10, 70, (2,), generator=generator(i)).tolist()
        if i % 2:
            image[y : y + 20, x : x + 20] = 30
    return Batch(images)


def trained(epochs: int, average: float, seed: int = 0) -> Tensor:
    """Classes of 40 unseen images by MIL that was trained on 24."""
    model = build_whole(KINDS[1], NETWORKS, seed=seed)
    training = Training(epochs=epochs, batch_size=8, learning_rate=1e-2, average=average)
    fit_whole(model, squares, range(24), torch.arange(24) % 2, training, seed=seed)  # type: ignore[arg-type]
    return predict_whole(model, squares, range(100, 140), seed=seed)  # type: ignore[arg-type]


def test_mil_learns_what_it_is_shown() -> None:
    assert (trained(20, 0.2).argmax(1) == torch.arange(40) % 2).float().mean() >= 0.95


def test_training_is_the_same_twice_and_averages_weights_if_asked() -> None:
    once, again, last = trained(2, 0.5), trained(2, 0.5), trained(2, 0)
    assert torch.equal(once, again)
    assert not torch.allclose(once, last)


def test_saved_bytes_count_each_storage_once() -> None:
    layer = torch.nn.Linear(10, 5)
    x = torch.randn(7, 10)
    # the input, for the weight's gradient; the result of exp, once though two nodes keep it
    found = saved_bytes(lambda: (lambda y: (y * y).sum())(layer(x).exp()), layer)
    assert found == 4 * (7 * 10 + 7 * 5)


def test_saved_bytes_of_a_full_cnn_grow_with_the_image() -> None:
    model = FullCNN(Convolutions(), 2)
    small, large = batch(100), batch(200)
    found = saved_bytes(lambda: model(large, generator()).logits.sum(), model)
    assert 3.5 < found / saved_bytes(lambda: model(small, generator()).logits.sum(), model) < 5.5


def test_interleaving_runs_every_step_in_turn() -> None:
    ran: list[str] = []
    found = interleaved_ms({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, rounds=2)
    assert ran == ["a", "b"] * 3
    assert set(found) == {"a", "b"}


def test_peak_bytes_sees_a_large_array() -> None:
    assert peak_bytes(lambda: torch.zeros(30_000_000).add_(1), steps=1) > 100e6
