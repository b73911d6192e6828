"""Error of every way to draw, relative to independent draws (`iid`) of as many patches.

    python benchmarks/sampling.py [--demo DEMO] [--draws 2000]

Mean squared error of the slide embedding against reading everything, over that of `iid` at the same N, in one run:
(a) synthetic maps of 48 x 48 cells, attention from diffuse to peaked, features smooth or white over them;
(b) with --demo, attention and features of the model that `saccade demo` trained, on its unseen slides.
`pairs` is the systematic draw that also tells its variance, as predictions use it. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pipeline.checkpoints import load_model
from pipeline.cohort import read_training_table
from pipeline.looking import look
from stages.features import unit
from stages.sampling import draw, expectation, hilbert_order, replicates

BUDGETS = (10, 50, 200)
WAYS = ("iid", "gumbel", "systematic", "pairs", "topk")
BATCH = 250


def synthetic(seed: int) -> Iterator[tuple[str, Tensor, Tensor, tuple[int, int]]]:
    """(name, log attention (K,), features (K, D), grid) of maps from diffuse to peaked, smooth and white."""
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
            yield f"{name}, {kind} features", logits.log_softmax(0), features, (side, side)


def trained(demo: Path) -> Iterator[tuple[str, Tensor, Tensor, tuple[int, int]]]:
    """The same of the demo's model on its unseen slides."""
    model = load_model(demo / "training" / "model.safetensors")
    for slide in read_training_table(demo / "cohort" / "cohort.csv").slides:
        if slide.split != "test":
            continue
        view = look(slide.path, model).view
        every = np.flatnonzero(view.tissue)
        (pixels,) = dask.compute(view.patches(every), scheduler="threads")
        features = torch.zeros(view.tissue.size, model.spec.dim, dtype=torch.float64)
        with torch.no_grad():
            features[torch.from_numpy(every)] = model.encoder(torch.from_numpy(pixels)).double()
            log_attention = model.attend(view).double()
        rows, columns = view.tissue.shape
        yield "trained slide model", log_attention, features, (rows, columns)


def squared_error(
    way: str, log_attention: Tensor, features: Tensor, grid: tuple[int, int], *, n: int, draws: int, seed: int
) -> float:
    """Mean of ``|estimate - Phi|^2`` over seeded draws."""
    exact = log_attention.exp() @ features
    generator = torch.Generator().manual_seed(seed)
    batch = log_attention.expand(BATCH, -1)
    order = hilbert_order(*grid)
    total = 0.0
    for _ in range(draws // BATCH):
        if way == "pairs":
            drawn = replicates(batch, n, 2, generator=generator, order=order)
        else:
            drawn = draw(batch, n, scheme=way, generator=generator, order=order)
        total += float((expectation(batch, features[drawn.cells], drawn) - exact).square().sum())
    return total / (draws // BATCH * BATCH)


def main() -> None:
    """Measure every setting and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="folder that `saccade demo` made")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = list(synthetic(arguments.seed)) + (list(trained(arguments.demo)) if arguments.demo else [])
    names = list(dict.fromkeys(name for name, *_ in settings))
    figures = []
    print(f"{'MSE relative to iid':<32}{'N':>5}" + "".join(f"{way:>12}" for way in WAYS[1:]))
    for name in names:
        for n in BUDGETS:
            # slides of one kind are averaged before the ratio, so that an easy slide does not dominate it
            error = {
                way: np.mean(
                    [
                        squared_error(way, a, f, grid, n=n, draws=arguments.draws, seed=arguments.seed)
                        for kind, a, f, grid in settings
                        if kind == name
                    ]
                )
                for way in WAYS
            }
            ratio = {way: float(error[way] / error["iid"]) for way in WAYS[1:]}
            print(f"{name:<32}{n:>5}" + "".join(f"{ratio[way]:>12.3g}" for way in WAYS[1:]), flush=True)
            figures.append({"setting": name, "n": n, "iid": float(error["iid"]), "relative": ratio})
    print(json.dumps({"benchmark": "sampling", "draws": arguments.draws, "settings": figures}))


if __name__ == "__main__":
    main()
