"""The networks of the paper's tasks: same convolutions everywhere, exact geometry, exhaustive limits, training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from benchmarks.costs import interleaved_ms, peak_bytes, saved_bytes
from benchmarks.paper.config import Networks, Row, build
from benchmarks.paper.fitting import Fitting, fit, predict
from benchmarks.paper.layers import (
    Batch,
    LowViewAttention,
    PatchEncoder,
    area_average,
    grid_corners,
    ink,
    read_patches,
)
from benchmarks.paper.models import AttentionSampling, FullCNN, GatedMIL, cell_corners
from benchmarks.paper.selection import PerturbedTopK, TopSelection, perturbed_shares

NETWORKS = Networks(
    widths=(4, 4, 8), attention_widths=(4, 4, 4), attention_strides=(2, 2, 1), patch_px=27, grid_stride=16
)
KINDS = [
    Row(title="", kind="cnn"),
    Row(title="", kind="mil"),
    Row(title="", kind="mil", share=0.25),
    Row(title="", kind="exhaustive"),
    Row(title="", kind="uniform", samples=5),
    *(Row(title="", kind="ats", samples=5, scheme=scheme) for scheme in ("systematic", "gumbel", "iid", "topk")),
]


def batch(size: int = 110, n: int = 3, seed: int = 0) -> Batch:
    images = torch.randint(256, (n, size, size, 3), generator=generator(seed), dtype=torch.uint8)
    return Batch(images, area_average(images, 5))


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
    assert isinstance(images, Tensor)
    corners = torch.tensor([[[0, 0], [83, 5]], [[3, 4], [10, 83]], [[1, 1], [2, 2]]])
    patches = read_patches(images, corners, 27)
    assert torch.equal(patches[1, 1], images[1, 10:37, 83:110])
    assert torch.equal(patches[0, 1], images[0, 83:110, 5:32])


def test_a_patch_has_the_same_map_alone_and_in_the_whole_image() -> None:
    encoder = PatchEncoder(widths=(4, 4, 8))
    x = ink(batch().images)  # type: ignore[arg-type]
    whole, part = encoder.layers(x), encoder.layers(x[:, :, 40:67, 60:87])
    assert torch.allclose(whole[:, :, 10:13, 15:18], part, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("size", [110, 113])
def test_shared_convolutions_give_the_same_mil(pool: str, size: int) -> None:
    encoder = PatchEncoder(widths=(4, 4, 8), pool=pool)  # type: ignore[arg-type]
    plain = GatedMIL(encoder, 2, patch_px=27, grid_stride=16)
    shared = GatedMIL(encoder, 2, patch_px=27, grid_stride=16, shared=True)
    shared.load_state_dict(plain.state_dict())
    a, b = plain(batch(size), generator()), shared(batch(size), generator())
    assert torch.allclose(a.logits, b.logits, atol=1e-5)
    assert torch.allclose(a.log_attention, b.log_attention, atol=1e-5)
    with pytest.raises(ValueError, match="multiple of 4"):
        GatedMIL(encoder, 2, patch_px=27, grid_stride=14, shared=True)


def test_a_cell_looks_at_its_own_patch() -> None:
    """The pixels that move a cell's logit are spread evenly about the centre of its patch: no stretching."""
    attention = LowViewAttention(widths=(4, 4, 4))
    for p in attention.parameters():
        torch.nn.init.constant_(p, 0.1)
    low = torch.ones(1, 3, 100, 100, requires_grad=True)
    logits = attention(low)[0]
    corners = cell_corners(Batch(torch.zeros(1, 500, 500, 3), torch.zeros(1, 100, 100, 3)), 27, logits.shape, 4)
    for row, column in ((3, 7), (12, 12), (20, 21)):
        (seen,) = torch.autograd.grad(logits[row, column], low, retain_graph=True)
        weight = seen[0, 0] / seen[0, 0].sum()
        centre = torch.stack([(weight.sum(1 - axis) * (torch.arange(100) + 0.5)).sum() for axis in (0, 1)])
        assert (5 * centre - (corners[row, column] + 13.5)).abs().max() <= 0.51


def test_the_first_cell_is_centred_on_the_first_pixel_of_the_low_view() -> None:
    at = Batch(torch.zeros(1, 1500, 1500, 1), torch.zeros(1, 180, 180, 1))
    corners = cell_corners(at, 50, (180, 180), 1)
    centre = corners[100, 60] + 25
    assert torch.allclose(centre.double(), torch.tensor([100.5, 60.5]).double() * 1500 / 180, atol=0.5)


@pytest.mark.parametrize("row", KINDS, ids=lambda row: f"{row.kind}-{row.scheme}-{row.share}")
def test_every_model_trains_all_of_its_parameters(row: Row) -> None:
    model = build(row, NETWORKS, seed=0)
    model.standardise(batch(), generator())
    output = model(batch(), generator())
    assert output.logits.shape == (3, 2)
    loss = output.logits[:, 0].sum()
    if output.log_attention is not None:
        assert torch.allclose(output.log_attention.exp().sum(1), torch.ones(3), atol=1e-5)
    loss.backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    assert not idle


@pytest.mark.parametrize("scheme", ["systematic", "gumbel", "iid"])
def test_averaged_draws_approach_the_exhaustive_embedding(scheme: str) -> None:
    torch.manual_seed(0)
    attention = LowViewAttention(widths=(4, 4, 4))
    torch.nn.init.normal_(attention.logit.weight)
    encoder = PatchEncoder(widths=(4, 4, 8))
    few = AttentionSampling(encoder, 2, patch_px=27, attention=attention, samples=5, scheme=scheme)
    every = AttentionSampling(encoder, 2, patch_px=27, attention=attention, samples=None)
    every.load_state_dict(few.state_dict())
    at = batch(n=1)
    with torch.no_grad():
        many = Batch(at.images.expand(400, -1, -1, -1), at.low.expand(400, -1, -1, -1))  # type: ignore[union-attr]
        found = few(many, generator()).logits
        exact = every(at, generator()).logits
    error = (found.mean(0) - exact[0]).abs() / (found.std(0) / math.sqrt(400))
    assert error.max() < 4
    assert few.reads == 5
    assert every.reads == 36


def test_top_selection_keeps_the_best_of_all_patches() -> None:
    torch.manual_seed(0)
    model = TopSelection(PatchEncoder(widths=(4, 4, 8)), 2, patch_px=27, grid_stride=16, keep=4, chunk=7)
    at = batch()
    kept = model.select(at)
    every = grid_corners((3, 110, 110, 3), 27, 16, torch.device("cpu"))
    with torch.no_grad():
        patches = ink(read_patches(at.images, every.expand(3, -1, -1), 27)).flatten(0, 1)
        scores = model.attention(model.encoder(patches).reshape(3, len(every), -1))
    assert torch.equal(kept, every[scores.topk(4).indices])


def test_perturbed_top_k_moves_scores_towards_what_lowers_the_loss() -> None:
    scores = torch.zeros(1, 6, requires_grad=True)
    z = torch.randn(1, 20_000, 6, generator=generator())
    shares = perturbed_shares(scores, z, 0.1, 2)
    assert torch.allclose(shares.sum(2), torch.ones(1, 2))
    # expected number of times that cell 4 is selected: of the six, two are
    taken = shares[0, :, 4].sum()
    assert abs(float(taken.detach()) - 1 / 3) < 4 * math.sqrt(2 / 9 / 20_000)
    taken.backward()
    assert scores.grad is not None
    assert scores.grad[0].argmax() == 4
    assert scores.grad[0, 4] > 0


def test_perturbed_top_k_trains_its_attention_and_predicts_plainly() -> None:
    model = PerturbedTopK(
        PatchEncoder(widths=(4, 4, 8)), 2, patch_px=27, attention=LowViewAttention(), samples=3, noise=0.05
    )
    torch.nn.init.normal_(model.attention.logit.weight)
    model(batch(), generator()).logits[:, 0].sum().backward()
    assert model.attention.logit.weight.grad is not None
    assert model.attention.logit.weight.grad.abs().max() > 0
    model.eval()
    assert torch.equal(model(batch(), generator(0)).logits, model(batch(), generator(1)).logits)


@dataclass(frozen=True)
class Squares:
    """Images with a dark square at a random place or without one; the seed is the image's number."""

    def __call__(self, items: list[int], _: torch.Generator | None) -> Batch:
        images = torch.full((len(items), 100, 100, 3), 240, dtype=torch.uint8)
        for image, i in zip(images, items, strict=True):
            y, x = torch.randint(10, 70, (2,), generator=generator(i)).tolist()
            if i % 2:
                image[y : y + 20, x : x + 20] = 30
        return Batch(images, area_average(images, 5))


def test_attention_sampling_learns_where_to_look() -> None:
    row = Row(title="", kind="ats", samples=3)
    model = build(row, NETWORKS, seed=0)
    items, labels = list(range(24)), torch.arange(24) % 2
    fit(model, Squares(), items, labels, Fitting(20, 8, learning_rate=1e-2, average=0.2), seed=0)  # type: ignore[arg-type]
    unseen = list(range(100, 140))
    found = predict(model, Squares(), unseen, seed=0, draws=3).argmax(1)  # type: ignore[arg-type]
    assert (found == torch.arange(40) % 2).float().mean() >= 0.95


def test_training_is_the_same_twice() -> None:
    def once() -> Tensor:
        model = build(Row(title="", kind="ats", samples=3), NETWORKS, seed=1)
        fit(model, Squares(), [0, 1, 2, 3], torch.tensor([0, 1, 0, 1]), Fitting(2, 2), seed=1)  # type: ignore[arg-type]
        return predict(model, Squares(), [5, 6], seed=1)  # type: ignore[arg-type]

    assert torch.equal(once(), once())


def test_saved_bytes_count_each_storage_once() -> None:
    layer = torch.nn.Linear(10, 5)
    x = torch.randn(7, 10)
    # the input, for the weight's gradient; the result of exp, once though two nodes keep it
    found = saved_bytes(lambda: (lambda y: (y * y).sum())(layer(x).exp()), layer)
    assert found == 4 * (7 * 10 + 7 * 5)


def test_saved_bytes_of_a_full_cnn_grow_with_the_image() -> None:
    model = FullCNN(PatchEncoder(), 2)
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
