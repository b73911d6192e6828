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


@pytest.mark.parametrize("name", ["learned", "hematoxylin"])
def test_a_large_thumbnail_is_looked_at_in_strips_with_the_same_result(name: str) -> None:
    """To the last bit, whether its pixels come as bytes or as what they stand for."""
    torch.manual_seed(0)
    attention = build_attention(name, cell_px=16)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pixels = torch.randint(0, 256, (3, 1019, 621), dtype=torch.uint8)
    with torch.no_grad():
        assert len(module._strips(pixels, 16)) == 2
        strips = attention(pixels)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "STRIP", pixels.numel())
            whole = attention(pixels / 255)
    assert torch.equal(strips, whole)
