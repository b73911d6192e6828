"""Several models as one: their mean log-odds, from one draw that is read once, and an interval that is of that mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import EXHAUSTIVE, FROZEN, TINY, frozen_model, frozen_view, sampler_model, tiny_backbone

from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_ensemble, save_model
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.fold_ensemble import FoldEnsemble
from pipeline.model.header import ENSEMBLE, find_ensemble
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import View
from pipeline.train.calibrate import calibrate, drawn_errors


def samplers(count: int = 3, **told: Any) -> list[SlideModel]:
    models = []
    for seed in range(count):
        model = sampler_model(replace(TINY, classes=("a", "b"), **told))
        torch.manual_seed(seed)
        for parameter in (*list(model.attention.parameters())[-2:], model.head.weight):
            torch.nn.init.normal_(parameter, std=20 if parameter is not model.head.weight else 0.2)
        models.append(model)
    return models


def frozen(count: int = 3) -> list[SlideModel]:
    backbone = tiny_backbone()
    return [frozen_model(replace(FROZEN, classes=("a", "b")), seed=seed, backbone=backbone) for seed in range(count)]


def exhaustive(count: int = 3) -> list[SlideModel]:
    backbone, models = tiny_backbone(dim=12), []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(ExhaustiveModel(EXHAUSTIVE, backbone=backbone).eval())
        for parameter in models[-1].parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return models


KINDS = {
    "sampler": samplers,
    "control": lambda: samplers(control=True),
    "blocks": lambda: samplers(block=2, samples=16),
    "frozen": frozen,
    "exhaustive": exhaustive,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(model: SlideModel, view: View) -> torch.Tensor:
    """Logits after reading every cell."""
    samples = None if model.spec.exhaustive else view.tissue.size
    return model.sample(view, generator=generator(), samples=samples).prediction.logits


@pytest.mark.parametrize("members", KINDS.values(), ids=KINDS)
def test_read_whole_it_is_the_mean_of_its_members_log_odds(members: Callable[[], list[SlideModel]]) -> None:
    models, view = members(), frozen_view(6, 8)
    found = FoldEnsemble(models).sample(view, generator=generator(), samples=None if members is exhaustive else 48)
    torch.testing.assert_close(
        found.prediction.logits, torch.stack([whole(model, view) for model in models]).mean(0), rtol=1e-4, atol=1e-4
    )
    assert found.prediction.reach == pytest.approx(0, abs=1e-6)
    assert float(found.log_attention.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("members", [samplers, frozen], ids=["sampler", "frozen"])
def test_its_estimate_is_unbiased_and_its_parts_add_up_to_it(members: Callable[[], list[SlideModel]]) -> None:
    """Over 400 draws within 4 standard errors of the mean after reading everything."""
    ensemble, view = FoldEnsemble(members()), frozen_view(6, 8)
    ((_, errors),) = drawn_errors(ensemble, view, [10], draws=400, generator=generator()).values()
    assert (errors.mean(0).abs() < 4 * errors.std(0) / 20).all()
    assert (errors.std(0) > 0.01).all()
    found, known = ensemble.sample(view, generator=generator(), samples=10), ensemble.attend(view).known[0].double()
    torch.testing.assert_close(known + found.adds.sum(0), found.prediction.logits, rtol=1e-4, atol=1e-4)


def test_patches_are_read_once_for_all_members() -> None:
    """And features of a frozen encoder made once."""
    view, asked = frozen_view(6, 8), []

    def counted(cells: np.ndarray) -> Any:
        asked.append(cells)
        return view.patches(cells)

    for members in (samplers(), frozen()):
        asked.clear()
        found = FoldEnsemble(members).sample(replace(view, patches=counted), generator=generator(), samples=10)
        assert sum(map(len, asked)) == len(found.cells)


def test_its_own_calibration_holds_on_other_slides() -> None:
    """The draws of its 95 % intervals hold the mean of what its members say of everything, on other slides."""
    ensemble = FoldEnsemble(samplers())
    views = [frozen_view(7, 9, seed=seed) for seed in range(16)]
    ensemble.calibration = calibrate(ensemble, [lambda v=v: v for v in views[:8]], seed=0, say=lambda line: None)
    assert ensemble.calibration is not None
    held = []
    for view in views[8:]:
        for n, (evidence, errors) in drawn_errors(ensemble, view, [12], draws=50, generator=generator()).items():
            held.append((errors.abs() <= ensemble.calibration.half_width(evidence, n)).all(1).double().mean().item())
    assert np.mean(held) > 0.9


def test_a_slide_is_predicted_by_those_that_have_not_seen_it() -> None:
    models = samplers()
    for model, own, chosen in zip(models, ("xy", "xz", "xw"), ("", "y", ""), strict=True):
        model.trained_on, model.validated_on = frozenset(own), frozenset(chosen)
    ensemble = FoldEnsemble(models)
    assert ensemble.unseen("q") is ensemble
    assert ensemble.unseen("x") is ensemble, "all have: it is said to be seen"
    assert (ensemble.trained_on, ensemble.validated_on) == ({"x"}, set())
    assert ensemble.unseen("y") is models[2]
    assert ensemble.unseen("y", "new") is models[2], "of a patient with one slide that some have seen"
    left = ensemble.unseen("w")
    assert isinstance(left, FoldEnsemble)
    assert left.each == models[:2]
    assert left.calibration is None


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([*samplers(1), *samplers(1, dim=4)], "not of one configuration"),
        (samplers(2, inner_mpp=2.0, region_cells=2, region_samples=2), "look twice"),
    ],
)
def test_what_has_no_mean_is_refused(models: list[SlideModel], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FoldEnsemble(models)


def test_a_file_names_its_members_and_is_of_no_others(tmp_path: Path) -> None:
    models, files = samplers(2), [tmp_path / f"fold-{i}" / "model.safetensors" for i in range(2)]
    for model, file in zip(models, files, strict=True):
        file.parent.mkdir()
        save_model(model, file)
    path, view = tmp_path / ENSEMBLE, frozen_view()
    with pytest.raises(UsageError, match=r"no ensemble.json at .*training.ensemble: true"):
        find_ensemble(tmp_path)
    save_ensemble(FoldEnsemble(models), path, files=files, beside={})
    moved = tmp_path.rename(tmp_path.with_name("moved")) / ENSEMBLE
    loaded = load_model(find_ensemble(moved.parent))
    torch.testing.assert_close(whole(loaded, view), whole(FoldEnsemble(models), view))
    save_model(models[0], moved.parent / "fold-1" / "model.safetensors")
    with pytest.raises(UsageError, match=r"fold-1.* is another than .* was made of: run .*training.ensemble: true"):
        load_model(moved)
    (moved.parent / "fold-1" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"names .*fold-1.*, which is not there"):
        load_model(moved)
    moved.write_text("{}")
    with pytest.raises(UsageError, match="is not a saccade-ensemble-1 file"):
        load_model(moved)
