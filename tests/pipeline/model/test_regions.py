"""Two levels of attention: regions from the thumbnail, cells inside opened regions from a second look."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from makers import tissue_pixels, write_slide
from models import TINY

from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.look import Look, look
from pipeline.model.regions import by_region, joint_attention, places, shares
from pipeline.model.sampler import FEATURE_SCALE, AttentionSampler
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from stages.attention import ThumbnailAttention
from stages.geometry import Raster
from stages.slide.render import count_reads, render

SPEC = replace(TINY, attention_mpp=16.0, inner_mpp=4.0, region_cells=3, region_samples=3)
ROWS, COLUMNS = 9, 12  # cells; 3 x 4 regions


def two_level(spec: ModelSpec) -> AttentionSampler:
    torch.manual_seed(1)
    model = AttentionSampler(spec).eval()
    assert model.inner is not None
    for attention, spread in ((model.attention, 20), (model.inner, 20)):
        torch.nn.init.normal_(attention.logit.weight, std=spread)  # starts at zero
    torch.nn.init.normal_(model.head.weight, std=0.2)
    return model


@pytest.fixture(scope="module")
def model() -> AttentionSampler:
    return two_level(SPEC)


@pytest.fixture(scope="module")
def view() -> View:
    """A slide that is an array; one of its regions has no tissue."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (18, 24, 3), np.uint8)
    patches = rng.integers(0, 256, (108, 32, 32, 3), np.uint8) // rng.integers(1, 4, (108, 1, 1, 3), np.uint8)
    side = 3 * SPEC.inner_cell_px + 2 * 7  # 7 pixels around it are seen by its outer cells
    regions = rng.integers(0, 256, (12, side, side, 3), np.uint8)
    tissue = rng.random((ROWS, COLUMNS)) < 0.8
    tissue[3:6, :3] = False
    return View(rgb, tissue, lambda cells: patches[cells], lambda found: regions[found])


def exhaustive(model: AttentionSampler, view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the model that looks into every region and reads every patch, and its attention; written out."""
    assert model.inner is not None
    assert view.regions is not None
    attention = torch.zeros(ROWS, COLUMNS, dtype=torch.float64)
    with torch.no_grad():
        outer = model.attend(view).log_attention.exp()
        for region in range(12):
            row, column = 3 * (region // 4), 3 * (region % 4)
            tissue = torch.from_numpy(view.tissue[row : row + 3, column : column + 3])
            if not tissue.any():
                assert outer[region] == 0
                continue
            image = torch.from_numpy(view.regions(np.array([region]))[0]).permute(2, 0, 1) / 255
            inside = model.inner(image).masked_fill(~tissue, -math.inf).flatten().softmax(0).view(3, 3)
            attention[row : row + 3, column : column + 3] = outer[region] * inside
        features = model.encoder(torch.from_numpy(view.patches(np.arange(ROWS * COLUMNS)))).double()
        embedding = (attention.flatten()[:, None] * features).sum(0)
        return model.head(FEATURE_SCALE * embedding.float()), attention.flatten()


@pytest.mark.parametrize("scheme", ["systematic", "gumbel", "iid"])
def test_logits_are_unbiased_for_those_of_the_model_that_reads_everything(
    model: AttentionSampler, view: View, scheme: str
) -> None:
    truth, _ = exhaustive(model, view)
    generator = torch.Generator().manual_seed(2)
    attention = model.attend(view)
    with torch.no_grad():
        every = model.encoder(torch.from_numpy(view.patches(np.arange(ROWS * COLUMNS))))
        trained = [model([view], samples=12, generator=generator, scheme=scheme).logits[0, 0] for _ in range(200)]
        (drawn,) = model.draw([view], [attention], samples=12, generator=generator, scheme=scheme, repeats=4000)
        evidence = model.evidence(drawn, every[drawn.cells])
    for logits, centred in ((torch.stack(trained).double(), truth), (evidence.statistics, None)):
        if centred is not None:
            error = logits.std(0) / math.sqrt(len(logits))
            assert ((logits.mean(0) - centred).abs() < 4 * error).all()  # four standard errors
    # and the stated variance of the (nearly linear) log-odds is that of the draws, within its own sampling error
    stated, true = evidence.by_design * evidence.unit, evidence.statistics.var(0)
    assert ((stated.mean(0) / true - 1).abs() < 0.15).all()


def test_a_region_counts_once_in_an_interval(model: AttentionSampler, view: View) -> None:
    """Where all patches of a region are one to the model, 4 regions leave 3 degrees of freedom, not 11."""
    (drawn,) = model.draw([view], [model.attend(view)], samples=12, generator=torch.Generator().manual_seed(0))
    assert drawn.cells.shape == (1, 12)
    region = drawn.cells // COLUMNS // 3 * 4 + drawn.cells % COLUMNS // 3
    kinds = torch.nn.functional.normalize(torch.randn(12, SPEC.dim, generator=torch.Generator().manual_seed(1)))
    told = model.evidence(drawn, kinds[region])
    taken = (drawn.draw.contrasts[0, : drawn.draw.between] != 0).any(0).view(4, 3).any(1).sum()
    assert taken > 1
    torch.testing.assert_close(told.freedom, (taken - 1).double().expand_as(told.freedom))


def test_a_budget_for_every_cell_is_exact_and_looks_everywhere(model: AttentionSampler, view: View) -> None:
    truth, attention = exhaustive(model, view)
    found = model.sample(view, generator=torch.Generator().manual_seed(0), samples=1000)
    torch.testing.assert_close(found.prediction.logits.float(), truth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.log_attention.exp(), attention, rtol=1e-4, atol=1e-7)
    assert torch.equal(found.prediction.low, found.prediction.high)
    assert sorted(found.cells) == list(np.flatnonzero(view.tissue))
    assert list(found.opened) == [region for region in range(12) if region != 4]
    assert found.missed == pytest.approx(0, abs=1e-9)


def test_only_opened_regions_are_read_and_nothing_twice(model: AttentionSampler, view: View) -> None:
    asked: list[int] = []
    opened: list[int] = []

    def patches(cells: np.ndarray) -> np.ndarray:
        asked.extend(cells)
        return np.asarray(view.patches(cells))

    def regions(found: np.ndarray) -> np.ndarray:
        assert view.regions is not None
        opened.extend(found)
        return np.asarray(view.regions(found))

    counting = View(view.rgb, view.tissue, patches, regions)
    once = model.sample(counting, generator=torch.Generator().manual_seed(0))
    assert len(asked) == len(set(asked)) == len(once.cells) <= 12
    assert opened == list(once.opened)
    assert len(opened) == 4  # 12 samples, 3 in each
    assert {(c // COLUMNS // 3) * 4 + c % COLUMNS // 3 for c in asked} <= set(opened)
    assert float(once.log_attention.exp().sum()) == pytest.approx(1, abs=1e-6)
    embedding = (once.weights * once.log_attention.exp().numpy()[once.cells]) @ once.features.astype(np.float64)
    logits = model.head(FEATURE_SCALE * torch.from_numpy(embedding).float())
    torch.testing.assert_close(once.prediction.logits.float(), logits, rtol=1e-4, atol=1e-4)
    asked.clear(), opened.clear()
    on = model.sample(counting, generator=torch.Generator().manual_seed(0), tolerance=1e-6)
    assert len(asked) == len(set(asked)) == len(on.cells) == view.tissue.sum()
    assert len(opened) == len(set(opened)) == len(on.opened)


def test_both_attentions_learn(model: AttentionSampler, view: View) -> None:
    """One step's gradient reaches the encoder, the head and both attention nets."""
    assert model.inner is not None
    out = model([view], samples=12, generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(out.logits[:, 0], torch.tensor([1])) - 0.01 * out.entropies.mean()
    model.zero_grad()
    loss.backward()
    for part in (model.attention, model.inner, model.encoder, model.head):
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        assert gradients
        assert all(bool(g.isfinite().all()) for g in gradients)
        assert any(bool(g.any()) for g in gradients)
    model.zero_grad()


def test_a_checkpoint_gives_back_both_levels(model: AttentionSampler, view: View, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec == SPEC
    first, second = (m.sample(view, generator=torch.Generator().manual_seed(3)) for m in (model, again))
    assert torch.equal(first.prediction.logits, second.prediction.logits)


@pytest.mark.parametrize("size", [(1803, 1401), (2048, 1536)])
def test_cells_regions_and_patches_lie_on_the_same_places(size: tuple[int, int], tmp_path: Path) -> None:
    """On a slide: a region's second look is cut into cells exactly where the cells' patches are read."""
    path = write_slide(tmp_path / "slide.tif", tissue_pixels(*size))
    model = two_level(replace(SPEC, attention_mpp=16.0, patch_mpp=0.5, patch_px=64))
    shown = look(path, model)
    assert shown.insider is not None
    rows, columns = (n // 3 for n in shown.tissue.shape)
    assert rows * columns == shown.insider.cells.width * shown.insider.cells.height
    inside = places(shown.tissue.shape, 3)
    for region in (0, columns + 1, rows * columns - 1):
        raster = shown.insider.rasters([region])[0]
        blocks = raster.pooled(8, 7 + 4, 3, 3)  # cells of 32 um are 8 pixels at 4 um/px, after 7 around the region
        np.testing.assert_allclose(
            blocks.centres_level0(np.arange(9)), shown.cells.centres_level0(inside[region].numpy()), atol=0.5
        )
    one = look(path, AttentionSampler(replace(model.spec, inner_mpp=None, region_cells=1)))
    height, width = one.tissue.shape
    assert np.array_equal(shown.tissue[:height, :width], one.tissue)
    assert (shown.cells.x, shown.cells.scale_x) == (one.cells.x, one.cells.scale_x)
    images = shown.insider.patches([0, columns + 1]).compute()
    assert images.shape == (2, 38, 38, 3)
    found = model.sample(shown.view, generator=torch.Generator().manual_seed(0), samples=12)
    cost = shown.count(found.cells, found.opened)
    assert cost.bytes > shown.count(found.cells, found.opened[:0]).bytes > shown.cost.bytes


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """A slide whose regions lie on whole pixels of level 0 and of the second look."""
    path = write_slide(tmp_path_factory.mktemp("regions") / "slide.tif", tissue_pixels(2304, 1536, margin=0.0))
    return look(path, two_level(replace(SPEC, attention_mpp=16.0, patch_mpp=0.5, patch_px=64)))


def test_a_regions_cells_see_what_lies_around_it(opened: Look) -> None:
    """Looked at region by region, a slide's cells get what they get when it is looked at whole; on its outer rim too,
    where there is nothing around it."""
    model = two_level(replace(SPEC, patch_mpp=0.5, patch_px=64))
    whole = ThumbnailAttention(cell_px=8)
    whole.load_state_dict(model.inner.state_dict())
    rows, columns = (n // 3 for n in opened.tissue.shape)
    with torch.no_grad():
        pixels = torch.from_numpy(opened.insider.patches(np.arange(rows * columns)).compute())
        ours = model.inner(pixels.movedim(-1, 1) / 255).flatten(1)
        corner = opened.cells
        raster = Raster(corner.x, corner.y, corner.scale_x / 8, corner.scale_y / 8, 24 * columns, 24 * rows)
        one = whole(torch.from_numpy(render(opened.slide, raster)).permute(2, 0, 1) / 255)
    assert opened.slide.facts.background == (255, 255, 255)
    torch.testing.assert_close(ours, by_region(one, 3).flatten(0, 1), rtol=1e-4, atol=1e-4)


def test_a_regions_image_holds_the_slides_own_pixels_around_it(opened: Look) -> None:
    """7 pixels of 8 level-0 pixels on every side; neighbours see each other's rim, and what is read stays small."""
    columns = opened.tissue.shape[1] // 3
    regions = [columns + 1, columns + 2]
    left, right = opened.insider.patches(regions).compute()
    assert np.array_equal(left[:, 24:], right[:, :14])
    (raster,) = opened.insider.rasters(regions[:1])
    assert (raster.x, raster.y) == (192 - 56, 192 - 56)
    assert np.array_equal(left, render(opened.slide, raster))
    cost = opened.insider.count(regions[:1])
    assert cost == count_reads(opened.slide, [raster])
    assert cost.tiles == replace(opened.insider, patch_px=24).count(regions[:1]).tiles == 1


def test_a_checkpoint_of_before_there_was_a_margin_looks_as_it_was_trained(tmp_path: Path) -> None:
    old = two_level(replace(SPEC, region_margin=False))
    save_model(old, tmp_path / "new.safetensors")
    data = (tmp_path / "new.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    spec = json.loads(header["__metadata__"]["spec"])
    assert spec.pop("region_margin") is False
    header["__metadata__"]["spec"] = json.dumps(spec)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (tmp_path / "old.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    again = load_model(tmp_path / "old.safetensors")
    image = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert again.inner.around == 0
    assert torch.equal(again.inner(image), old.inner(image))


def test_places_are_where_by_region_takes_cells_from() -> None:
    cells = torch.rand(6, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cells.flatten()[places((6, 9), 3)], by_region(cells, 3).flatten(0, 1))
    assert sorted(places((6, 9), 3).flatten().tolist()) == list(range(54))
    assert by_region(cells, 3)[1, 2].tolist() == cells[3:6, 6:9].flatten().tolist()


@pytest.mark.parametrize("samples", [4, 5, 12, 31, 99, 100, 1000])
@pytest.mark.parametrize("regions", [1, 2, 7, 40])
def test_shares_keep_to_the_budget_and_open_two_regions_where_there_are_two(samples: int, regions: int) -> None:
    """Two regions at least tell their variance; a slide of at most that many cells is taken whole."""
    opened, count = shares(samples, tissue=100, regions=regions, each=5, size=9)
    if samples >= 100:
        assert (opened, count) == (regions, 9)
    else:
        assert opened * count <= samples
        assert min(2, regions) <= opened <= regions


def test_attention_is_even_where_no_region_was_opened_and_sums_to_one() -> None:
    tissue = torch.tensor([[True, True, False, True], [True, False, False, False], [False] * 4])
    log_a = torch.tensor([0.75, 0.25, 0.0]).log()
    opened = {1: torch.tensor([0.0, -math.inf, -math.inf, -math.inf])}
    found = joint_attention(log_a, opened, tissue, places((2, 6), 2)).exp()
    assert found[places((2, 6), 2)[0]].tolist() == pytest.approx([0.25, 0.25, 0, 0.25])
    assert found[places((2, 6), 2)[1]].tolist() == pytest.approx([0.25, 0, 0, 0])
    assert float(found.sum()) == pytest.approx(1)
