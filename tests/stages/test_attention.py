"""A thumbnail becomes a map over cells, and the cells lie exactly where the network looks."""

import math

import numpy as np
import pytest
import torch

from stages import attention as module
from stages.attention import GrainAttention, ThumbnailAttention, build_attention, masked_log_softmax, tissue_cells
from stages.geometry import Raster

NAMES = ["learned", "hematoxylin", "uniform"]


def thumbnail(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def trained_like(cell_px: int) -> ThumbnailAttention:
    """A network whose every path from input to logit has a positive weight, so that no gradient cancels or is cut."""
    attention = ThumbnailAttention(cell_px=cell_px)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.fill_(0.1)
    return attention


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 71), (7, 100), (1, 1)])
def test_cells_cover_the_whole_thumbnail(name: str, height: int, width: int) -> None:
    raster = Raster(100.0, -50.0, 16.0, 15.9, width, height)
    attention = build_attention(name, cell_px=8)
    cells = attention.raster(raster)
    assert attention(thumbnail(height, width)).shape == cells.shape == (math.ceil(height / 8), math.ceil(width / 8))
    left, top, right, bottom = raster.extent_level0
    assert cells.extent_level0[0] <= left
    assert cells.extent_level0[1] <= top
    assert cells.extent_level0[2] >= right - 1e-6
    assert cells.extent_level0[3] >= bottom - 1e-6


@pytest.mark.parametrize("cell_px", [4, 5, 8, 12, 16])
@pytest.mark.parametrize(("height", "width"), [(96, 96), (97, 103)])
def test_a_cell_is_centred_on_what_the_network_sees(cell_px: int, height: int, width: int) -> None:
    attention = trained_like(cell_px)
    ink = thumbnail(height, width).requires_grad_()
    raster = Raster(1000.0, 500.0, 16.0, 16.1, width, height)
    logits = attention(ink)
    row, col = (n // 2 for n in logits.shape)
    (gradient,) = torch.autograd.grad(logits[row, col], ink)
    seen = gradient.abs().sum(dim=0)
    rows, cols = (torch.nonzero(seen.sum(dim=1 - axis)).flatten() for axis in (0, 1))
    centre = [(cols.min() + cols.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2]
    expected = attention.raster(raster).centres_level0([row * logits.shape[1] + col])[0]
    np.testing.assert_allclose(raster.to_level0(np.array([float(c) for c in centre])), expected, atol=1e-6)


def test_the_last_cell_sees_the_remainder() -> None:
    attention, ink = trained_like(8), thumbnail(41, 43).requires_grad_()
    (gradient,) = torch.autograd.grad(attention(ink)[-1, -1], ink)
    assert (gradient[:, -1, -1] != 0).all()


def test_the_rim_of_an_empty_thumbnail_is_no_special_case() -> None:
    torch.manual_seed(0)
    attention = ThumbnailAttention(cell_px=8)
    torch.nn.init.normal_(attention.logit.weight)
    logits = attention(torch.ones(3, 61, 77))
    torch.testing.assert_close(logits, logits[0, 0].expand_as(logits))


def test_hematoxylin_prefers_blue_to_brown_and_to_background() -> None:
    image = torch.ones(3, 8, 24)
    image[:, :, 8:16] = torch.tensor([0.45, 0.4, 0.65])[:, None, None]
    image[:, :, 16:] = torch.tensor([0.55, 0.4, 0.2])[:, None, None]
    logits = build_attention("hematoxylin", cell_px=8)(image)[0]
    assert logits[1] > logits[0] + 1
    assert logits[1] > logits[2] + 1


@pytest.mark.parametrize("name", ["hematoxylin", "grain"])
def test_black_is_no_hematoxylin(name: str) -> None:
    """Unmixed, black has nine times a dark nucleus's (findings/black-is-hematoxylin.sh): borders would get it all."""
    attention = GrainAttention(cell_px=8) if name == "grain" else build_attention(name, cell_px=8)
    image = torch.ones(3, 8, 40)
    image[:, ::2, 8:16:2] = torch.tensor([70, 50, 120])[:, None, None] / 255  # nuclei
    image[:, :, 16:24] = 0  # beside the scan
    image[:, :, 24:28] = 0  # its border
    image[:, ::2, 32::2] = 6 / 255  # ink
    logits = attention(image)[0]
    assert logits.argmax() == 1
    assert (logits[2:] <= logits[0]).all()


@pytest.mark.parametrize("grey", [40, 90, 150])
def test_grey_is_no_hematoxylin(grey: int) -> None:
    """Dirt, carbon, silver and shadows would outweigh nuclei."""
    image = torch.ones(3, 8, 16)
    image[:, :, :8] = torch.tensor([150, 120, 180])[:, None, None] / 255
    image[:, :, 8:] = grey / 255
    logits = build_attention("hematoxylin", cell_px=8)(image)[0]
    assert logits[0] > logits[1] + 1


def test_an_unknown_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of learned, hematoxylin, uniform"):
        build_attention("magic", cell_px=8)


def test_attention_is_a_distribution_over_tissue_cells_only() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 50
    cells = logits > 0
    log_attention = masked_log_softmax(logits, cells)
    assert torch.isneginf(log_attention[~cells]).all()
    assert float(log_attention[cells].exp().sum()) == pytest.approx(1, abs=1e-12)
    differences = log_attention[cells] - logits[cells]
    torch.testing.assert_close(differences, differences[0].expand_as(differences))


def test_off_tissue_logits_get_no_gradient_and_no_nan() -> None:
    logits = torch.zeros(3, 3, requires_grad=True)
    cells = torch.zeros(3, 3, dtype=torch.bool)
    cells[0, :2] = True
    masked_log_softmax(logits, cells)[0, 0].backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5, 0], [0, 0, 0], [0, 0, 0]]))


def test_no_tissue_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one tissue cell"):
        masked_log_softmax(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool))


def test_a_cell_is_tissue_from_a_tenth_of_its_pixels_on() -> None:
    mask = torch.zeros(10, 30, dtype=torch.bool)
    mask[0, :10], mask[0, 10:19], mask[:, 20:] = True, True, True  # with a full cell, so that no other is the fullest
    assert tissue_cells(mask, cell_px=10).tolist() == [[True, False, True]]


def test_a_speck_of_tissue_still_has_a_cell() -> None:
    mask = torch.zeros(17, 17, dtype=torch.bool)
    assert not tissue_cells(mask, cell_px=8).any()
    mask[16, 3] = True
    assert tissue_cells(mask, cell_px=8).nonzero().tolist() == [[2, 0]]


def test_grain_prefers_nuclei_to_an_even_stain_of_the_same_mean() -> None:
    """Dots of hematoxylin against the same amount spread evenly: the mean map sees no difference, the grain does."""
    blue = torch.tensor([0.65, 0.704, 0.286])  # optical density of hematoxylin by colour (Ruifrok & Johnston 2001)
    amount = torch.full((16, 32), 0.5)
    amount[:, 16:] = 0.0
    amount[::2, 16::2] = 2.0
    image = torch.exp(-amount * blue[:, None, None])
    dense = build_attention("hematoxylin", cell_px=16)(image)[0]
    grain = GrainAttention(cell_px=16)(image)[0]
    assert abs(float(dense[1] - dense[0])) < 0.05 * abs(float(dense[0]))
    assert float(grain[1] - grain[0]) > 10


def test_a_large_thumbnail_is_unmixed_in_strips_with_the_same_result() -> None:
    """To the last bit, whether its pixels come as bytes or as what they stand for."""
    attention = build_attention("hematoxylin", cell_px=16)
    pixels = torch.randint(0, 256, (3, 1019, 621), dtype=torch.uint8)
    assert len(module._strips(pixels, 16)) == 2
    strips = attention(pixels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRIP", pixels.numel())
        whole = attention(pixels / 255)
    assert torch.equal(strips, whole)


def any_network(cell_px: int) -> ThumbnailAttention:
    torch.manual_seed(0)
    attention = ThumbnailAttention(cell_px=cell_px)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return attention


def blob(rows: int, columns: int) -> torch.Tensor:
    """A disk of marked cells, and one far from it in the corner."""
    y, x = (torch.linspace(-1, 1, n) for n in (rows, columns))
    cells = (y[:, None] + 0.3) ** 2 + x**2 < 0.2
    cells[-1, -1] = True
    return cells


@pytest.mark.parametrize("cell_px", [4, 7, 8, 16, 20, 32, 128])
def test_tissue_alone_gives_what_the_whole_thumbnail_gives_there(cell_px: int) -> None:
    """Of slides of any sizes together, whether their pixels come as bytes or as what they stand for."""
    attention = any_network(cell_px)
    thumbnails = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((517, 530), (301, 120), (3, 9))]
    marked = [blob(-(-rgb.shape[1] // cell_px), -(-rgb.shape[2] // cell_px)) for rgb in thumbnails]
    with torch.no_grad():
        wanted = [attention.features(rgb) for rgb in thumbnails]
        found = attention.features_of(thumbnails, marked)
        told = attention.features_of([rgb / 255 for rgb in thumbnails], marked)
    for whole, own, same, cells in zip(wanted, found, told, marked, strict=True):
        assert own.shape == whole.shape
        torch.testing.assert_close(own[:, cells], whole[:, cells], rtol=0, atol=1e-5)
        assert torch.equal(own, same)
        elsewhere = own[:, ~cells]
        assert ((elsewhere == 0) | torch.isclose(elsewhere, whole[:, ~cells], rtol=0, atol=1e-5)).all()


def test_tissue_alone_teaches_what_the_whole_thumbnail_teaches() -> None:
    attention = any_network(8).double()
    pixels = torch.rand(3, 517, 530, dtype=torch.float64)
    cells = blob(65, 67)

    def gradients(logits: torch.Tensor) -> list[torch.Tensor]:
        attention.zero_grad()
        masked_log_softmax(logits, cells)[cells].square().sum().backward()
        return [p.grad.clone() for p in attention.parameters() if p.grad is not None]

    whole = gradients(attention(pixels))
    (features,) = attention.features_of([pixels], [cells])
    torch.testing.assert_close(gradients(attention.logits(features)), whole)


def test_glass_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large slide with two specks, little more than the specks; of much tissue few squares at a time."""
    attention, seen = any_network(8), []
    layers = attention._layers

    def counted(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.shape[0] * images.shape[2] * images.shape[3])
        return layers(images)

    monkeypatch.setattr(attention, "_layers", counted)
    pixels = torch.full((3, 1600, 1600), 255, dtype=torch.uint8)
    specks = torch.zeros(200, 200, dtype=torch.bool)
    specks[3:5, 11:14] = specks[150, 199] = True
    with torch.no_grad():
        attention.features_of([pixels], [specks])
    assert sum(seen) == 2 * (module.BLOCK_PX + attention.field - attention.stride) ** 2
    seen.clear()
    with torch.no_grad():
        attention.features_of([pixels], [torch.ones_like(specks)])
    assert len(seen) > 4
    assert max(seen) < 2 * module.STRIP


def test_of_no_marked_cell_nothing_is_known() -> None:
    found = any_network(8).features_of([thumbnail(64, 64)], [torch.zeros(8, 8, dtype=torch.bool)])
    assert found[0].shape == (16, 8, 8)
    assert not found[0].any()
