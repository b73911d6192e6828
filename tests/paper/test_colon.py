"""The colon-cancer task: folds, augmentation, what attention is measured against, records and their table."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from makers import ROOT
from sklearn.metrics import roc_auc_score

from benchmarks.paper import colon, contrast
from benchmarks.paper.colon_images import (
    KINDS,
    Colon,
    ColonViews,
    WholeImages,
    assign_folds,
    block_folds,
    colour_quantiles,
    focus,
    load_colon,
    stain_matrices,
    stained,
    turned,
    turnings,
)
from benchmarks.paper.config import ColonTask, Networks, Row, Sight, Training, read_task
from benchmarks.paper.contrast import learn_to_tell_apart
from benchmarks.paper.layers import Convolutions, ink
from benchmarks.paper.records import append_record, auroc, bootstrap, interval, read_records
from benchmarks.paper.tables import colon_figures
from benchmarks.paper.whole import build_whole, predict_whole

SIGHT = Sight(low_px=20, cell_px=2, patch_px=10)


@pytest.fixture(scope="module")
def task() -> ColonTask:
    return read_task(ROOT / "configs/paper/colon.yaml", ColonTask)


def spotted(n: int = 3, size: int = 100) -> torch.Tensor:
    """Pink images with a blue square at a place of their own."""
    images = torch.tensor([230, 170, 210], dtype=torch.uint8).expand(n, size, size, 3).clone()
    for i in range(n):
        images[i, 20 * i : 20 * i + 20, 40:60] = torch.tensor([80, 50, 140], dtype=torch.uint8)
    return images


def test_every_fold_has_its_share_of_both_classes() -> None:
    labels = [1] * 51 + [0] * 49
    folds = assign_folds(labels, 10, seed=0)
    assert np.bincount(folds).tolist() == [10] * 10
    positives = np.bincount(folds, weights=labels)
    assert positives.min() >= 5
    assert not np.array_equal(folds, assign_folds(labels, 10, seed=1))


def test_blocks_are_runs_of_neighbours() -> None:
    assert block_folds(100, 10).tolist() == [i // 10 for i in range(100)]


def test_the_eight_positions_differ_and_are_the_same_for_all_rows() -> None:
    images = torch.randint(256, (2, 20, 20, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    positions = turnings(images)
    assert torch.equal(positions[0], images)
    assert len({t.numpy().tobytes() for t in positions}) == 8
    for way, position in enumerate(positions):
        np.testing.assert_array_equal(turned(images[1].numpy(), way), position[1])


def test_low_view_and_patches_are_turned_together() -> None:
    """The patches of an augmented view, shrunk, are its low view."""
    views = ColonViews(spotted(3), SIGHT, stain_jitter=0.0)
    seen = {views(1, torch.Generator().manual_seed(seed)).rgb.tobytes() for seed in range(40)}
    assert len(seen) > 2
    for seed in range(10):
        view = views(1, torch.Generator().manual_seed(seed))
        patches = view.patches(np.arange(100)).reshape(10, 10, 10, 10, 3)
        whole = patches.swapaxes(1, 2).reshape(20, 5, 20, 5, 3).mean((1, 3))
        np.testing.assert_allclose(view.rgb, whole, atol=1)


def test_stain_of_strength_one_changes_nothing() -> None:
    assert torch.allclose(stain_matrices(torch.ones(2, 3)), torch.eye(3).expand(2, 3, 3), atol=1e-5)


def test_stain_jitter_is_linear_in_optical_density() -> None:
    pixels = spotted(1)
    colours = stain_matrices(torch.full((1, 3), 2.0))
    twice = ink(pixels, colours)
    assert torch.allclose(twice, 2 * ink(pixels), atol=1e-4)
    shown = ink(torch.from_numpy(stained(pixels.numpy(), colours[0].numpy())))
    assert ((shown - twice).abs() < 0.6 / (256 * (-twice).exp())).all()  # up to rounding to a grey level


def test_an_encoder_learns_to_tell_patches_apart_without_labels() -> None:
    """Two views of an unseen patch stand out from the others more than before; the same seed does the same."""
    tissue = torch.from_numpy(skimage.data.immunohistochemistry())
    images = torch.stack([tissue[:256, :256], tissue[256:, :256], tissue[:256, 256:], tissue[256:, 256:]])
    unseen = contrast._windows(images, [3], 27, torch.Generator().manual_seed(1))

    @torch.no_grad()
    def surprise(encoder: Convolutions) -> torch.Tensor:
        """Cross-entropy of finding each patch's other view by its features, (PATCHES,)."""
        generator = torch.Generator().manual_seed(9)
        a, b = (torch.nn.functional.normalize(encoder(contrast._view(unseen, 27, generator)), dim=1) for _ in range(2))
        return -(a @ b.T / contrast.TEMPERATURE).log_softmax(1).diagonal()

    torch.manual_seed(0)
    encoders = [Convolutions(widths=(8, 16, 32))]
    encoders.append(copy.deepcopy(encoders[0]))
    encoders[0].standardise(contrast._view(unseen, 27, None))
    before = surprise(encoders[0])
    for encoder in encoders:
        learn_to_tell_apart(encoder, images, [0, 1, 2], patch_px=27, steps=30, seed=2)
    gain = before - surprise(encoders[0])
    torch.testing.assert_close(surprise(encoders[0]), surprise(encoders[1]), rtol=0, atol=0)
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5


def test_augmented_predictions_see_each_draw_anew(task: ColonTask) -> None:
    """Turned images give a convolutional model other logits; without augmentation all its draws are the same."""
    source = WholeImages(spotted(3, 100), stain_jitter=0.1)
    model = build_whole(task.rows["cnn"], task.networks, seed=0)
    once, plain = (predict_whole(model, source, range(3), seed=0, draws=draws) for draws in (1, 3))
    augmented = [predict_whole(model, source, range(3), seed=0, draws=3, augmented=True) for _ in range(2)]
    torch.testing.assert_close(once, plain)
    torch.testing.assert_close(*augmented, rtol=0, atol=0)
    assert (augmented[0] - plain).abs().max() > 1e-4


def test_colour_quantiles_do_not_know_where_things_are() -> None:
    images = spotted()
    assert np.array_equal(colour_quantiles(images), colour_quantiles(images.flip(1)))
    assert np.allclose(colour_quantiles(images)[0], colour_quantiles(images)[1])


def test_focus_of_even_attention_is_chance_and_of_sharp_attention_is_one() -> None:
    y, x = np.meshgrid(np.arange(10, 200, 20.0), np.arange(10, 200, 20.0), indexing="ij")
    centres = np.stack([y, x], -1).reshape(-1, 2)
    nuclei = {kind: np.empty((0, 2)) for kind in KINDS} | {
        "epithelial": np.array([[50.0, 70.0]]),
        "others": np.array([[150.0, 150.0], [150.0, 150.0]]),
    }
    even = focus(np.full(100, 0.01), centres, nuclei)
    assert even.mass == pytest.approx(even.chance)
    assert even.chance == pytest.approx(0.01)  # the next centres are 20 pixels away
    assert even.any_nucleus == pytest.approx(0.5)
    assert focus(np.eye(100)[2 * 10 + 3], centres, nuclei).mass == 1


def test_auroc_agrees_with_scikit_learn_where_scores_tie() -> None:
    rng = np.random.default_rng(0)
    y, scores = rng.integers(2, size=50), rng.integers(5, size=50) / 4
    assert auroc(y, scores) == pytest.approx(roc_auc_score(y, scores))


def test_bootstrap_interval_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(values[bootstrap(400)].mean(1))
    assert low == pytest.approx(values.mean() - 1.96 * values.std() / 20, abs=0.01)
    assert high == pytest.approx(values.mean() + 1.96 * values.std() / 20, abs=0.01)


def test_records_survive_a_line_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, {"what": "fold", "row": "a"})
    with path.open("a") as file:
        file.write('{"what": "fo')
    assert [r["row"] for r in read_records(path)] == ["a"]
    append_record(path, {"what": "fold", "row": "b"})
    assert [r["row"] for r in read_records(path)] == ["a", "b"]
    assert {"time", "commit", "torch", "device"} <= set(read_records(path)[0]["made"])


def test_a_digest_follows_what_matters_only(task: ColonTask) -> None:
    def changed(**row: Any) -> ColonTask:
        rows = task.rows | {"ats10": task.rows["ats10"].model_copy(update=row)}
        return task.model_copy(update={"rows": rows})

    digest = task.digest("ats10")
    assert changed(title="another", repeats=9).digest("ats10") == digest
    assert changed(samples=11).digest("ats10") != digest
    assert task.model_copy(update={"revision": 99}).digest("ats10") != digest


def made_up(task: ColonTask, row: str, wrong: set[int], repeat: int = 0) -> list[dict[str, Any]]:
    """Records of a model that is sure, and wrong on some images."""
    return [
        {
            "what": "fold",
            "row": row,
            "repeat": repeat,
            "fold": fold,
            "digest": task.digest(row),
            "images": [f"img{i}" for i in range(10 * fold, 10 * fold + 10)],
            "labels": [i % 2 for i in range(10 * fold, 10 * fold + 10)],
            "probabilities": [0.9 if (i % 2) != (i in wrong) else 0.1 for i in range(10 * fold, 10 * fold + 10)],
            "seconds": 1.0,
            "reads": 10,
            "made": {"time": "2026-11-28T12:00:00+00:00"},
        }
        for fold in range(10)
    ]


def test_figures_pool_folds_average_repeats_and_pair_rows(task: ColonTask) -> None:
    records = made_up(task, "cnn", {1, 2, 3, 4}) + made_up(task, "ats10", {1, 2})
    records += made_up(task, "ats10", {1, 2, 5, 6}, repeat=1)
    records += made_up(task, "ats10", set(range(100)), repeat=2)[:9]  # not whole yet
    found = colon_figures(records, task)
    assert found["ats10"]["repeats"] == 2
    assert found["ats10"]["error"]["value"] == pytest.approx(0.03)
    assert found["ats10"]["minus_cnn"]["value"] == pytest.approx(-0.01)
    assert found["cnn"]["error"]["low"] < 0.04 < found["cnn"]["error"]["high"]
    json.dumps(found)


def test_figures_leave_out_records_of_another_configuration(task: ColonTask) -> None:
    records = made_up(task, "ats10", set())
    other = task.model_copy(update={"revision": 99})
    assert colon_figures(records, other) == {}


def tiny() -> tuple[Colon, ColonTask]:
    """Eight small images, half of them with a blue square, and a configuration of two folds and two rows."""
    images = torch.tensor([230, 170, 210], dtype=torch.uint8).expand(8, 60, 60, 3).clone()
    images[1::2, 20:40, 20:40] = torch.tensor([80, 50, 140], dtype=torch.uint8)
    nuclei = tuple({kind: np.array([[30.0, 30.0]] * (i % 2)).reshape(-1, 2) for kind in KINDS} for i in range(8))
    tiny = ColonTask(
        folds=2,
        sight=Sight(low_px=12, cell_px=2, patch_px=10),
        networks=Networks(widths=(4, 4, 4), patch_px=27, grid_stride=16),
        training=Training(epochs=1, batch_size=4),
        rows={
            "ats": Row(title="", kind="ats", samples=2, repeats=2, training={"warm_up": 1}),
            "cnn": Row(title="", kind="cnn"),
        },
    )
    return Colon(tuple(f"img{i}" for i in range(8)), images, torch.arange(8) % 2, nuclei), tiny


def test_a_run_does_every_row_once_before_any_twice_and_nothing_again(tmp_path: Path) -> None:
    data, task = tiny()
    results = tmp_path / "tiny.jsonl"
    rows = list(task.rows)
    expected = [("ats", 0, 0), ("ats", 0, 1), ("cnn", 0, 0), ("cnn", 0, 1), ("ats", 1, 0), ("ats", 1, 1)]
    assert colon.missing(task, results, rows, None) == expected
    colon.run(data, task, results, ["ats"], 1, minutes=10)
    assert colon.missing(task, results, rows, None) == expected[2:]
    colon.run(data, task, results, rows, None, minutes=10)
    colon.run(data, task, results, rows, None, minutes=10)
    records = read_records(results)
    assert [(r["row"], r["repeat"], r["fold"]) for r in records] == expected
    assert sorted(records[0]["images"] + records[1]["images"]) == sorted(data.names)
    assert records[0]["focus"].keys() <= {"img1", "img3", "img5", "img7"}
    assert colon_figures(records, task)["ats"]["repeats"] == 2


def test_a_run_stops_when_its_time_is_up(tmp_path: Path) -> None:
    data, task = tiny()
    colon.run(data, task, tmp_path / "tiny.jsonl", ["ats"], 1, minutes=0)
    assert read_records(tmp_path / "tiny.jsonl") == []


def test_every_row_of_the_configuration_is_described_and_trained(task: ColonTask) -> None:
    titles = {row.title for row in task.rows.values()}
    assert len(titles) == len(task.rows)
    for row in task.rows.values():
        assert task.training_of(row).epochs > 0
        assert row.kind != "ats" or task.training_of(row).average == 0  # the product averages no weights


@pytest.mark.realdata
def test_the_set_is_as_it_is_described(shared_data: Path) -> None:
    colon = load_colon(shared_data)
    assert colon.images.shape == (100, 500, 500, 3)
    assert int(colon.labels.sum()) == 51
    assert colon.names[36] == "img37"
    assert [bool(len(nuclei["epithelial"])) for nuclei in colon.nuclei] == colon.labels.bool().tolist()
    # nuclei are dark: positions are (y, x) and not the other way round
    density, yx = (
        ink(colon.images[:20]).sum(1),
        [n["epithelial"].round().astype(int).clip(0, 499) for n in colon.nuclei],
    )
    at, turned = (
        torch.cat([d[p[:, axis], p[:, 1 - axis]] for d, p in zip(density, yx, strict=False)]).mean() for axis in (0, 1)
    )
    assert at > 1.3 * turned
