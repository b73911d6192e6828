"""The training loop on slides that are arrays: each of its parts does what its name says, seen from outside."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import TINY
from torch import Tensor

from pipeline.model.reading import image
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import View
from pipeline.train.fit import fit
from stages.attention import HematoxylinAttention
from stages.sampling.estimate import entropy
from stages.slide.facts import SlideError

PLAIN: dict[str, Any] = {
    "samples": 8,
    "epochs": 2,
    "batch_size": 2,
    "learning_rate": 1e-2,
    "attention_rate": 1.0,
    "warm_up": 0,
    "weight_decay": 0.0,
    "entropy_weight": 0.0,
    "gradient_clip": 1e9,
    "seed": 0,
    "device": "cpu",
}
"""Every part of the loop that can be switched off is."""
ROWS, COLUMNS = 10, 9


def slide(seed: int) -> View:
    """A slide whose patches are as dark as its thumbnail's cells."""
    rng = np.random.default_rng(seed)
    shades = rng.integers(40, 256, (ROWS * COLUMNS, 1, 1, 3))
    patches = (shades * rng.uniform(0.7, 1, (ROWS * COLUMNS, 32, 32, 1))).astype(np.uint8)
    rgb = shades.reshape(ROWS, COLUMNS, 3).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    return View(rgb, np.ones((ROWS, COLUMNS), bool), lambda cells: patches[cells])


VIEWS = [slide(seed) for seed in range(4)]


def new_model(**changes: Any) -> AttentionSampler:
    """Random weights, the attention's last layer too: it starts at zero, where nothing can be told apart."""
    torch.manual_seed(0)
    model = AttentionSampler(replace(TINY, **changes))
    if model.spec.attention == "learned":
        torch.nn.init.normal_(model.attention.logit.weight, std=30)
    return model


def fitted(
    model: AttentionSampler,
    folder: Path,
    views: Sequence[View] = VIEWS,
    say: Callable[[str], None] = lambda line: None,
    **changes: Any,
) -> AttentionSampler:
    labels = [i % 3 for i in range(len(views))]
    folder.mkdir(exist_ok=True)
    fit(model, lambda i: views[i], torch.tensor(labels), checkpoint=folder / "fit.ckpt", say=say, **PLAIN | changes)
    return model


def weights(module: torch.nn.Module) -> Tensor:
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def moved(folder: Path, part: str, **changes: Any) -> float:
    """How far one part's weights move at most in a fit."""
    model = new_model()
    before = weights(getattr(model, part))
    return float((weights(getattr(fitted(model, folder, **changes), part)) - before).abs().max())


def test_the_warm_up_prefers_hematoxylin(tmp_path: Path) -> None:
    """The fit that follows it moves nothing here, and what it starts from is attention that is the same everywhere."""
    model = new_model()
    torch.nn.init.zeros_(model.attention.logit.weight)
    fitted(model, tmp_path, warm_up=10, learning_rate=1e-12)
    stain = HematoxylinAttention(cell_px=4, temperature=1.0)
    for view in VIEWS:
        density = stain(image(view.rgb, model.device)).flatten()
        with torch.no_grad():
            attention = model.attend(view).log_attention.exp()
        assert float(attention @ density) > float(density.mean() + density.std())


def test_the_second_looks_warm_up_prefers_grain(tmp_path: Path) -> None:
    """Inside regions, whose images hold 7 pixels around their cells."""
    rng = np.random.default_rng(0)
    grainy = rng.random((12, 9)) < 0.3  # (regions, cells)
    spread = np.where(grainy.reshape(12, 3, 3), 60, 5).repeat(8, 1).repeat(8, 2)
    noise = rng.uniform(-1, 1, (12, 38, 38, 1)) * np.pad(spread, [(0, 0), (7, 7), (7, 7)], constant_values=5)[..., None]
    regions = np.clip(np.array([150, 110, 180]) + noise, 0, 255).astype(np.uint8)
    rgb = np.full((18, 24, 3), 200, np.uint8)
    patches = np.zeros((108, 32, 32, 3), np.uint8)
    view = View(rgb, np.ones((9, 12), bool), lambda cells: patches[cells], lambda found: regions[found])
    model = new_model(attention_mpp=16.0, inner_mpp=4.0, region_cells=3, region_samples=3)
    fitted(model, tmp_path, [view] * 3, warm_up=40, learning_rate=1e-12)
    assert model.inner is not None
    with torch.no_grad():
        attention = model.inner(image(regions, model.device)).flatten(1).softmax(1)
    assert float(attention[torch.from_numpy(grainy)].mean()) > 2 * float(attention[torch.from_numpy(~grainy)].mean())


def test_entropy_is_rewarded(tmp_path: Path) -> None:
    """With the reward, attention ends less peaked than it began."""
    model = new_model()

    def spread() -> float:
        with torch.no_grad():
            return float(torch.stack([entropy(model.attend(v).log_attention[None]) for v in VIEWS]).mean())

    before = spread()
    fitted(model, tmp_path, entropy_weight=1.0, learning_rate=1e-3, epochs=10)
    assert spread() > before + 0.1


def test_every_epoch_draws_anew(tmp_path: Path) -> None:
    """Attention never changes here, so that only the epochs' own draws can differ."""
    epochs: list[list[int]] = [[]]

    def patches(cells: np.ndarray) -> np.ndarray:
        epochs[-1].extend(cells.tolist())
        return VIEWS[0].patches(cells)

    def say(line: str) -> None:
        epochs.append([])

    view = View(VIEWS[0].rgb, VIEWS[0].tissue, patches)
    fitted(new_model(attention="uniform"), tmp_path, [view], say, epochs=3, batch_size=1)
    first, second, third = (set(cells[-8:]) for cells in epochs[:3])  # before the first epoch the scale of features
    assert len(first) == len(second) == len(third) == 8
    assert first != second != third != first


def test_every_epoch_takes_every_slide_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    orders: list[list[int]] = [[]]

    def view(i: int) -> View:
        orders[-1].append(i)
        return VIEWS[i % 4]

    def say(line: str) -> None:
        orders.append([])

    kept = PLAIN | {"epochs": 3, "batch_size": 1}
    fit(new_model(), view, torch.tensor([0, 1, 2] * 3), checkpoint=tmp_path / "fit.ckpt", say=say, **kept)
    first, second, third = (order[-9:] for order in orders[:3])
    assert sorted(first) == sorted(second) == sorted(third) == list(range(9))
    assert first != second != third != first


def test_a_gradient_is_clipped(tmp_path: Path) -> None:
    """AdamW divides by the gradient's size plus 1e-8: a clip far below that leaves next to no step."""
    assert moved(tmp_path / "free", "head") > 1e-3
    assert moved(tmp_path / "clipped", "head", gradient_clip=1e-13) < 1e-6


@pytest.mark.parametrize("rate", [0.02, 1.0])
def test_the_attention_net_has_its_own_rate(tmp_path: Path, rate: float) -> None:
    """AdamW's first step moves a weight by its rate, whatever the gradient."""
    steps = {"epochs": 1, "batch_size": 4, "attention_rate": rate}
    head, attention = moved(tmp_path / "a", "head", **steps), moved(tmp_path / "b", "attention", **steps)
    assert attention / head == pytest.approx(rate, rel=0.05)


def test_the_control_variate_learns_to_foretell_the_features(tmp_path: Path) -> None:
    """Its own loss is what teaches it: from the slides' loss it gets noise around zero."""

    def error(rate: float) -> float:
        model = new_model(control=True)
        fitted(model, tmp_path / f"{rate}", learning_rate=rate, epochs=30)
        with torch.no_grad():
            return float(model(VIEWS, samples=90, generator=torch.Generator().manual_seed(1)).control_error)

    assert error(1e-2) < 0.8 * error(1e-9)


def test_the_encoder_meets_patches_turned(tmp_path: Path) -> None:
    """One slide of one kind of patch, all whose eight ways differ: training shows the encoder all of them."""
    patch = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    ways = {np.rot90(side, k).tobytes() for side in (patch, patch[:, ::-1]) for k in range(4)}
    assert len(ways) == 8
    view = View(VIEWS[0].rgb, VIEWS[0].tissue, lambda cells: np.repeat(patch[None], len(cells), 0))
    model, met = new_model(), set()
    model.encoder.register_forward_pre_hook(lambda module, args: met.update(p.numpy().tobytes() for p in args[0]))
    fitted(model, tmp_path, [view], samples=64, batch_size=1)
    assert met == ways


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_balanced_classes_weigh_alike(tmp_path: Path, class_weights: str, batch_size: int) -> None:
    """However slides fall into batches, and whether a class has none: the loss told is of slides that are all alike."""
    patches = np.full((ROWS * COLUMNS, 32, 32, 3), 99, np.uint8)
    view, labels = replace(VIEWS[0], patches=lambda cells: patches[cells]), [0, 0, 0, 2, 0, 0, 0]
    model, told = new_model(), []
    settings = {**PLAIN, "epochs": 1, "learning_rate": 1e-12, "batch_size": batch_size, "class_weights": class_weights}
    fit(model, lambda i: view, torch.tensor(labels), checkpoint=tmp_path / "fit.ckpt", say=told.append, **settings)
    with torch.no_grad():
        logits = model([view], samples=90, generator=torch.Generator().manual_seed(0)).logits[0, 0]
    errors = -logits.log_softmax(0)
    expected = {"none": (6 * errors[0] + errors[2]) / 7, "balanced": (errors[0] + errors[2]) / 2}
    assert abs(float(expected["none"] - expected["balanced"])) > 0.05
    assert re.search(r"loss (\S+),", told[-1])[1] == f"{float(expected[class_weights]):.3f}"


def test_weights_decay(tmp_path: Path) -> None:
    """Decoupled: a clip that leaves no gradient leaves the decay, ``rate * decay`` of a weight each step."""
    model = new_model()
    before = weights(model.head)
    fitted(model, tmp_path, gradient_clip=1e-13, weight_decay=10.0, epochs=10)
    assert float((weights(model.head) / before).median()) == pytest.approx(0.42, abs=0.15)


@pytest.mark.parametrize("steps", range(1, 13))
def test_so_many_steps_learn(tmp_path: Path, steps: int) -> None:
    """At ten the schedule's rise ends with the first step; at one it has nowhere to go."""
    assert moved(tmp_path, "head", epochs=steps, batch_size=4, attention_rate=0.1) > 1e-4


def test_a_step_whose_only_slide_fails_is_no_step_and_the_others_go_on(tmp_path: Path) -> None:
    """Slide 1 is lost in epoch 2; told once, and never asked for again."""
    asked: list[int] = []
    epochs: list[list[int]] = []

    def view(i: int) -> View:
        if i == 1 and len(epochs) == 1:
            raise SlideError("s1.svs: gone")
        asked.append(i)
        return VIEWS[i]

    def say(line: str) -> None:
        epochs.append(sorted(asked))
        asked.clear()

    lost: list[tuple[int, str]] = []
    kept = PLAIN | {"epochs": 3, "batch_size": 1}
    fit(
        new_model(),
        view,
        torch.tensor([0, 1, 2, 0]),
        checkpoint=tmp_path / "fit.ckpt",
        say=say,
        leave_out=lambda i, why: lost.append((i, why)),
        **kept,
    )
    assert lost == [(1, "in epoch 2: s1.svs: gone; what was learnt from it until then stays")]
    scales, *first = (epochs[0][i::2] for i in range(2))  # the first epoch follows the scale of features
    assert [scales, *first, *epochs[1:]] == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 3], [0, 2, 3]]


def test_without_anyone_to_tell_a_slide_that_fails_ends_the_fit(tmp_path: Path) -> None:
    def view(i: int) -> View:
        raise SlideError("s1.svs: gone")

    with pytest.raises(SlideError, match=r"^s1\.svs: gone$"):
        fit(new_model(), view, torch.tensor([0, 1]), checkpoint=tmp_path / "fit.ckpt", say=print, **PLAIN)


@pytest.mark.parametrize("lost", [(), (3,)])
@pytest.mark.parametrize("accumulate", [2, 3])
def test_batches_that_are_accumulated_are_one_large_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int, lost: tuple[int, ...]
) -> None:
    """Where all cells are read nothing is random but the order; the last step is of what is left, and who is left out
    amid a step counts in neither. By plain gradients: AdamW enlarges what rounds to 0."""
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, weight_decay: torch.optim.SGD(groups, momentum=0.9))

    def learnt(name: str, **how: int) -> Tensor:
        model, broken = new_model(control=True), [False]

        def view(i: int) -> View:
            if i in lost and broken[0]:
                raise SlideError("gone")
            return VIEWS[i % 4]

        def say(line: str) -> None:
            broken[0] = True

        told: list[int] = []
        options = PLAIN | {"samples": 90, "turn": False, "entropy_weight": 0.1, "learning_rate": 1e-3} | how
        labels, path = torch.tensor([i % 3 for i in range(9)]), tmp_path / f"{name}.ckpt"
        fit(model, view, labels, checkpoint=path, say=say, leave_out=lambda i, why: told.append(i), **options)
        assert told == list(lost)
        return weights(model)

    small, large = learnt("a", batch_size=2, accumulate=accumulate), learnt("b", batch_size=2 * accumulate)
    learnt_at_all = float((large - weights(new_model(control=True))).norm())
    assert float((small - large).norm()) < 1e-4 * learnt_at_all
    assert float((small - learnt("c", batch_size=2)).norm()) > 0.1 * learnt_at_all


def test_an_encoder_learns_in_bfloat16_and_attention_in_full(tmp_path: Path) -> None:
    model, met = new_model(), dict[str, set[torch.dtype]]()

    def meets(name: str) -> Callable[..., None]:
        return lambda module, args, found: met.setdefault(name, set()).add(found.dtype)

    for name, part in (("encoder", model.encoder.body), ("attention", model.attention.layers)):
        part.register_forward_hook(meets(name))
    before = weights(model.encoder)
    fitted(model, tmp_path / "a", precision="bf16-mixed", samples=90, turn=False)
    assert met == {"encoder": {torch.bfloat16, torch.float32}, "attention": {torch.float32}}  # the scale is set before
    assert weights(model.encoder).dtype == torch.float32
    full = weights(fitted(new_model(), tmp_path / "b", samples=90, turn=False).encoder)
    assert 0 < float((weights(model.encoder) - full).norm()) < 0.5 * float((full - before).norm())
