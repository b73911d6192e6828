"""Error of every way to draw, against reading everything.

    python benchmarks/sampling.py [--demo DEMO] [--colon] [--draws 2000]

Two tables at equal numbers of patches N, from one run: the mean squared error of the embedding over that of `iid`, and,
where there is a trained head, the root mean squared error of the probability. On
(a) synthetic maps of 48 x 48 cells, attention from diffuse to peaked, features smooth or white over them;
(b) with --demo, attention and features of the model that `saccade demo` trained, on its unseen slides; with --colon, of
an ATS-10 trained as in configs/paper/colon.yaml on all folds but the first, on the images of the first.
`pairs` is the systematic draw that also tells its variance, as predictions use it; `+ control` adds a control variate:
features foretold from the attention net's own low-resolution features by least squares on what training drew. `topk` is
biased; `exhaustive` would read every cell. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from benchmarks.paper.colon import CONFIG
from benchmarks.paper.colon_folds import Trainer
from benchmarks.paper.colon_images import load_colon
from benchmarks.paper.config import ColonTask, read_task
from benchmarks.places import data_folder
from pipeline.cohort.training_table import read_training_table
from pipeline.model.checkpoint import load_model
from pipeline.model.look import look
from pipeline.model.reading import image
from pipeline.model.sampler import FEATURE_SCALE, AttentionSampler
from pipeline.model.values import View
from stages.encoder.patch_encoder import unit
from stages.sampling.draw import draw, draw_judged
from stages.sampling.estimate import expectation
from stages.sampling.walk import hilbert_order

BUDGETS = (10, 24, 50, 200)
WAYS = ("iid", "gumbel", "systematic", "pairs", "systematic + control", "pairs + control", "topk")
BATCH = 250
TRAINING_SLIDES = 24
"""Whose drawn patches the control variate is fitted to."""


@dataclass(frozen=True)
class Setting:
    """One map: log attention (K,), features (K, D), its grid; a control variate (K, D) and a head where there are any.

    ``head`` is (weights, bias) of the log-odds of the second class against the first.
    """

    name: str
    log_attention: Tensor
    features: Tensor
    grid: tuple[int, int]
    control: Tensor | None = None
    head: tuple[Tensor, float] | None = None


def synthetic(seed: int) -> Iterator[Setting]:
    """Maps from diffuse to peaked, smooth and white."""
    side, dim = 48, 16
    rng = np.random.default_rng(seed)
    landscape = ndimage.gaussian_filter(rng.standard_normal((side, side)), 3)
    landscape /= landscape.std()
    white = rng.standard_normal((dim, side, side))
    smooth = np.stack([ndimage.gaussian_filter(layer, 4) for layer in white])
    for kind, layers in (("smooth", smooth), ("white", white)):
        features = unit(torch.from_numpy(layers.reshape(dim, -1).T.copy()))
        for name, sharpness in (("diffuse", 0.5), ("middling", 2.0), ("peaked", 5.0)):
            logits = torch.from_numpy(landscape.ravel() * sharpness)
            yield Setting(f"{name}, {kind} features", logits.log_softmax(0), features, (side, side))


def slides(demo: Path, seed: int) -> Iterator[Setting]:
    """The demo's model on its unseen slides."""
    model = load_model(demo / "training" / "model.safetensors")
    cohort = read_training_table(demo / "cohort" / "cohort.csv").slides
    train, test = ([look(s.path, model).view for s in cohort if s.split == split] for split in ("train", "test"))
    yield from trained("trained slide model", model, train[:TRAINING_SLIDES], test, seed)


def colon(seed: int) -> Iterator[Setting]:
    """The paper's task: trained on all folds but the first, seen on the first."""
    task = read_task(CONFIG, ColonTask)
    trainer = Trainer(load_colon(data_folder()), task)
    fold, views = trainer.folds["random"], trainer.views()
    train, test = np.flatnonzero(fold != 0).tolist(), np.flatnonzero(fold == 0).tolist()
    model, _, _ = trainer.fitted(task.rows["ats10"], train, seed)
    yield from trained(
        "trained colon model", model.eval(), [views(i, None) for i in train], [views(i, None) for i in test], seed
    )


@torch.no_grad()
def trained(
    name: str, model: AttentionSampler, train: Sequence[View], test: Sequence[View], seed: int
) -> Iterator[Setting]:
    """A model on the images ``test``; its control variate is fitted to what it draws from ``train``."""
    generator = torch.Generator().manual_seed(seed)
    seen, wanted = [], []
    for view in train:
        cells = model.sample(view, generator=generator).cells
        seen.append(_thumbnail_features(model, view)[cells])
        wanted.append(model.encode(view, cells))
    foretell = _least_squares(torch.cat(seen), torch.cat(wanted))
    weights = FEATURE_SCALE * (model.head.weight[1] - model.head.weight[0]).double()
    bias = float(model.head.bias[1] - model.head.bias[0])
    for view in test:
        every = np.flatnonzero(view.tissue)
        features = torch.zeros(view.tissue.size, model.spec.dim, dtype=torch.float64)
        features[torch.from_numpy(every)] = model.encode(view, every).double()
        log_attention = model.attend(view).log_attention.double()
        control = _extended(_thumbnail_features(model, view)) @ foretell
        rows, columns = view.tissue.shape
        yield Setting(name, log_attention, features, (rows, columns), control, (weights, bias))


def _thumbnail_features(model: AttentionSampler, view: View) -> Tensor:
    """What the attention net sees in each cell, (K, channels)."""
    features: Tensor = model.attention.features(image(view.rgb, model.device))  # type: ignore[operator]
    return features.flatten(1).T


def _extended(channels: Tensor) -> Tensor:
    return torch.cat([channels, torch.ones(len(channels), 1)], 1).double()


def _least_squares(channels: Tensor, features: Tensor) -> Tensor:
    """Ridge regression of features (n, D) on channels (n, c) and a constant: (c + 1, D)."""
    x = _extended(channels)
    return torch.linalg.solve(x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1]).double(), x.T @ features.double())


def errors(setting: Setting, way: str, *, n: int, draws: int, seed: int) -> tuple[float, float]:
    """Mean of ``|estimate - Phi|^2`` over seeded draws, and of the squared error of the probability (NaN without a
    head)."""
    exact = setting.log_attention.exp() @ setting.features
    generator = torch.Generator().manual_seed(seed)
    batch = setting.log_attention.expand(BATCH, -1)
    order = hilbert_order(*setting.grid)
    scheme, _, more = way.partition(" + ")
    control = None
    if more:
        assert setting.control is not None
        control = setting.control.expand(BATCH, -1, -1)
    embedding, probability = 0.0, 0.0
    for _ in range(draws // BATCH):
        if scheme == "pairs":
            drawn = draw_judged(batch, n, generator=generator, order=order)
        else:
            drawn = draw(batch, n, scheme=scheme, generator=generator, order=order)
        found = expectation(batch, setting.features[drawn.cells], drawn, control=control)
        embedding += float((found - exact).square().sum())
        if setting.head is not None:
            weights, bias = setting.head
            away = torch.sigmoid(found @ weights + bias) - torch.sigmoid(exact @ weights + bias)
            probability += float(away.square().sum())
    count = draws // BATCH * BATCH
    return embedding / count, probability / count if setting.head is not None else float("nan")


def main() -> None:
    """Measure every setting and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="folder that `saccade demo` made")
    parser.add_argument("--colon", action="store_true", help="train and measure the paper's colon model too")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = list(synthetic(arguments.seed))
    settings += list(slides(arguments.demo, arguments.seed)) if arguments.demo else []
    settings += list(colon(arguments.seed)) if arguments.colon else []
    figures = []
    print(f"{'MSE of the embedding over that of iid':<38}{'N':>4}" + "".join(f"{way:>22}" for way in WAYS[1:]))
    for name in dict.fromkeys(setting.name for setting in settings):
        group = [setting for setting in settings if setting.name == name]
        for n in BUDGETS:
            ways = [way for way in WAYS if group[0].control is not None or "control" not in way]
            # slides of one kind are averaged before the ratio, so that an easy slide does not dominate it
            found = {
                way: np.mean([errors(s, way, n=n, draws=arguments.draws, seed=arguments.seed) for s in group], axis=0)
                for way in ways
            }
            ratio = {way: float(found[way][0] / found["iid"][0]) for way in ways[1:]}
            cells = "".join(f"{ratio[way]:>22.3g}" if way in ratio else f"{'':>22}" for way in WAYS[1:])
            print(f"{name:<38}{n:>4}{cells}", flush=True)
            figures.append(
                {
                    "setting": name,
                    "n": n,
                    "cells": float(np.mean([int((s.log_attention > -torch.inf).sum()) for s in group])),
                    "iid": float(found["iid"][0]),
                    "relative": ratio,
                    "rms_probability": {
                        way: float(np.sqrt(found[way][1])) for way in ways if group[0].head is not None
                    },
                }
            )
    print(
        f"\n{'RMS error of the probability':<38}{'N':>4}" + "".join(f"{way:>22}" for way in (*WAYS, "exhaustive reads"))
    )
    for one in figures:
        if one["rms_probability"]:
            cells = "".join(f"{one['rms_probability'][way]:>22.3g}" for way in WAYS)  # type: ignore[index]
            print(f"{one['setting']:<38}{one['n']:>4}{cells}{one['cells']:>22.0f}")
    print(json.dumps({"benchmark": "sampling", "draws": arguments.draws, "settings": figures}))


if __name__ == "__main__":
    main()
