"""The whole model's intervals: what each look is asked when reading on until sure, and by whose rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models import TINY
from scipy.stats import t as student_t

from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import View
from stages.prediction.intervals import UNFITTED
from stages.sampling.schemes import SCHEMES

BUDGET = TINY.samples


@pytest.fixture(scope="module")
def model() -> AttentionSampler:
    torch.manual_seed(1)
    model = AttentionSampler(TINY).eval()
    torch.nn.init.normal_(model.head.weight, std=0.2)
    return model


def slide(cells: int) -> View:
    rng = np.random.default_rng(cells)
    patches = rng.integers(0, 256, (cells, 32, 32, 3), np.uint8) // rng.integers(1, 4, (cells, 1, 1, 3), np.uint8)
    rgb = rng.integers(0, 256, (4, 4 * cells, 3), np.uint8)
    return View(rgb, np.ones((1, cells), bool), lambda chosen: patches[chosen])


@pytest.mark.parametrize(
    ("cells", "most", "looks"),
    [(24, None, 2), (25, None, 3), (96, None, 4), (97, None, 5), (97, 24, 2), (97, 12, 1), (97, 6, 1)],
)
def test_every_look_gets_its_share_of_the_five_per_cent(
    model: AttentionSampler, cells: int, most: int | None, looks: int
) -> None:
    """Budgets double from the model's own to the most that may be read: J looks, each at confidence 1 - 0.05 / J.

    Independent draws are all left to chance, so that the interval's t distribution is known; the first look's interval
    and that of the same draw without a tolerance differ by its quantiles alone.
    """
    view, half = slide(cells), []
    budget = min(BUDGET, most or cells)
    for tolerance in (None, 1.0):  # no interval reaches farther than 1: the first look is the last
        found = model.sample(
            view,
            generator=torch.Generator().manual_seed(0),
            samples=budget if tolerance is None else most,
            scheme="iid",
            tolerance=tolerance,
        )
        assert len(found.cells) <= budget
        half.append(torch.logit(found.prediction.high) - torch.logit(found.prediction.values))
    # of three classes, each gets its share too
    freedom = len(found.cells) - 1  # a cell that is drawn again tells nothing new
    wider = student_t.ppf(1 - 0.025 / 3 / looks, freedom) / student_t.ppf(1 - 0.025 / 3, freedom)
    torch.testing.assert_close(half[1] / half[0], torch.full((3,), float(wider), dtype=torch.float64))


def test_the_models_calibration_sets_its_intervals(model: AttentionSampler) -> None:
    """A rule whose factor is 3 reaches three times as far as the one that knows no cohort."""
    ruled = AttentionSampler(TINY, calibration=replace(UNFITTED, factors=(3.0,))).eval()
    ruled.load_state_dict(model.state_dict())
    found = [m.sample(slide(96), generator=torch.Generator().manual_seed(0)).prediction for m in (model, ruled)]
    plain, wide = (torch.logit(one.high) - torch.logit(one.values) for one in found)
    torch.testing.assert_close(wide, 3 * plain)


@pytest.mark.parametrize("scheme", ["iid", "gumbel"])
def test_reading_on_ends_where_the_scheme_tells_no_interval(
    model: AttentionSampler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    """As a draw of more than 2048 of a large slide does; it is said, unless the tolerance was reached."""
    monkeypatch.setitem(SCHEMES, scheme, replace(SCHEMES[scheme], most_judged=32))

    def read(tolerance: float) -> int:
        generator = torch.Generator().manual_seed(0)
        return len(model.sample(slide(97), generator=generator, scheme=scheme, tolerance=tolerance).cells)

    assert read(1.0) <= BUDGET
    assert not caplog.records
    assert BUDGET < read(1e-6) <= 32
    (told,) = caplog.messages
    assert told.startswith(f"the tolerance 1e-06 is not reached: {scheme} tells no interval beyond 32 of")
