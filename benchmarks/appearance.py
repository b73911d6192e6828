"""Out-of-distribution scores: how often slides of the cohort pass the limit, how often others do, and what it costs.

    python benchmarks/appearance.py [--cohort FOLDER] [--slides 64] [--size 4096] [--draws 20]          three minutes

Painting the demo's slides takes most of that; `--cohort` keeps them for the next time. Cohorts: these slides at
8 µm/px, and where CRCHistoPhenotypes is at hand, its H&E pictures at 2 µm/px. Of each, 4, 8, 16 and 32 slides drawn at
random are what a model was trained on, and all others are held out: as they are, for the false alarms, and changed, for
what must be told: recoloured by their optical density into other stains, paler, darker, washed out, grey, out of focus,
as by another scanner, dark field. The tissue is that of the unchanged slide. Printed are the share that passes the
limit and the median score, means over the draws. Then the real slides at hand against the demo's training slides, with
what is said of them; and the processor time of the score over that of a whole prediction. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import color, io
from skimage.transform import downscale_local_mean

from benchmarks.places import data_folder
from pipeline.cohort.training_table import read_training_table
from pipeline.config import load_config
from pipeline.demo.cohort import make_cohort
from pipeline.model.look import look_at
from pipeline.model.sampler import AttentionSampler
from pipeline.predict import predict_slide
from pipeline.shipped import shipped_config
from pipeline.task.classes import Classes
from pipeline.train.spec import model_spec
from stages.appearance import Appearance, CohortAppearance, appearance, cohort_appearance
from stages.pyramid.open import open_pyramid
from stages.tissue.mask import NoTissueError, find_tissue, tissue_mask
from stages.tissue.thumbnail import Thumbnail, read_thumbnail

Pixels = NDArray[np.uint8]
Picture = tuple[Pixels, NDArray[np.bool_]]
MPP = 8.0
CROP_PIXELS = 4
"""Pixels of CRCHistoPhenotypes (20x, about 0.5 µm) that are averaged along each side."""
SIZES = (4, 8, 16, 32)
REAL = (
    ("CMU-1-Small-Region.svs", MPP),
    ("test3-DAPI-2-(387).ndpi", MPP),
    ("multi_frame_jpeg_camelyon_challenge_image.dcm", 32.0),  # it has no finer level; so its texture is another
)


def to_bytes(values: NDArray[np.floating[Any]]) -> Pixels:
    """Grey levels, rounded and within their range."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def scaled(*factors: float) -> Callable[[Pixels], Pixels]:
    """Optical densities times a factor, or one for each colour."""
    return lambda rgb: to_bytes(256 * np.exp(-np.log(256 / (rgb + 1.0)) * factors) - 1)


def restained(matrix: NDArray[np.floating[Any]], *, by: NDArray[np.floating[Any]]) -> Callable[[Pixels], Pixels]:
    """The first two stains of ``by`` taken apart, and put together in the colours of another pair."""

    def change(rgb: Pixels) -> Pixels:
        amounts = color.separate_stains(rgb, by)
        amounts[..., 2] = 0
        return to_bytes(255 * color.combine_stains(amounts, matrix))

    return change


def blurred(sigma: float) -> Callable[[Pixels], Pixels]:
    """Out of focus, by thumbnail pixels."""
    return lambda rgb: to_bytes(ndimage.gaussian_filter(rgb.astype(float), (sigma, sigma, 0)))


def changes(stains: NDArray[np.floating[Any]]) -> dict[str, Callable[[Pixels], Pixels]]:
    """What is made of a slide whose stains are taken apart by this matrix."""
    hed = color.rgb_from_hed
    return {
        "as it is": lambda rgb: rgb,
        "other scanner: 5 % of white balance": lambda rgb: to_bytes(rgb * (0.97, 1.0, 1.02)),
        "other scanner: density x 1.1": scaled(1.1),
        "darker x 1.5": scaled(1.5),
        "darker x 2": scaled(2.0),
        "paler x 0.6": scaled(0.6),
        "paler x 0.4": scaled(0.4),
        "washed out": lambda rgb: to_bytes(rgb + 0.5 * (245 - rgb.astype(float))),
        "H&E": restained(hed, by=stains),
        "hematoxylin, DAB": restained(hed[[0, 2, 1]], by=stains),
        "hematoxylin, PAS": restained(color.rgb_from_hpx, by=stains),
        "alcian blue, hematoxylin": restained(color.rgb_from_ahx, by=stains),
        "methyl green, DAB": restained(color.rgb_from_gdx, by=stains),
        "Feulgen, light green": restained(color.rgb_from_fgx, by=stains),
        "aniline blue, orange": restained(color.rgb_from_bro, by=stains),
        "grey": lambda rgb: to_bytes(np.repeat(rgb.mean(2, keepdims=True), 3, 2)),
        "out of focus, 1 px": blurred(1.0),
        "out of focus, 2 px": blurred(2.0),
        "dark field": lambda rgb: 255 - rgb,
    }


def rates(found: dict[str, list[Appearance]], draws: int) -> dict[str, dict[int, tuple[float, float]]]:
    """Of each change and number of slides trained on: share of held-out slides past the limit, and median score."""
    rng = np.random.default_rng(0)
    out: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in found}
    count = len(found["as it is"])
    for size in SIZES:
        scores: dict[str, list[list[float]]] = {name: [] for name in found}
        for _ in range(draws):
            order = rng.permutation(count)
            cohort = cohort_appearance([found["as it is"][i] for i in order[:size]])
            for name, ones in found.items():
                scores[name].append([cohort.compare(ones[i]).score or 0.0 for i in order[size:]])
        for name, values in scores.items():
            out[name][size] = (
                float(np.mean([np.mean(np.array(one) > 1) for one in values])),
                float(np.mean([np.median(one) for one in values])),
            )
    return out


def show(title: str, table: dict[str, dict[int, tuple[float, float]]]) -> None:
    """A row for each change: share past the limit, and in brackets the median score."""
    print(f"\n{title}\n{'':36s}" + "".join(f"{f'{size} slides':>18s}" for size in SIZES))
    for name, row in table.items():
        print(f"{name:36s}" + "".join(f"{share:10.1%} ({score:5.1f})" for share, score in row.values()))


def crops() -> list[Picture]:
    """The H&E pictures that have tissue, as thumbnails."""
    pictures = []
    for path in sorted(data_folder().glob("crchistophenotypes/**/img*.bmp")):
        rgb = to_bytes(downscale_local_mean(io.imread(path)[..., :3], (CROP_PIXELS, CROP_PIXELS, 1)))
        mask = tissue_mask(rgb, 0.5 * CROP_PIXELS)
        if mask.mean() > 0.05:
            pictures.append((rgb, mask))
    return pictures


def real(cohort: CohortAppearance) -> dict[str, dict[str, Any]]:
    """The score of each real slide at hand, and what is said of it."""
    told = {}
    for name, mpp in REAL:
        path = data_folder() / "slides" / name
        if path.exists():
            try:
                thumbnail = read_thumbnail(open_pyramid(path), mpp)
                likeness = cohort.compare(appearance(thumbnail.rgb, find_tissue(thumbnail).mask))
            except NoTissueError as exc:
                told[name] = {"score": None, "warning": str(exc)}
                continue
            told[name] = {"score": likeness.score, "warning": likeness.warning}
    return told


def cost(slides: list[Path], cohort: CohortAppearance) -> dict[str, float]:
    """Median processor seconds of a prediction and of its score, and their ratio."""
    torch.manual_seed(0)
    model = AttentionSampler(model_spec(load_config(shipped_config("demo.yaml")), Classes(("a", "b")))).eval()
    model.appearance = cohort
    whole, score = [], []
    for path in slides:
        started = time.process_time()
        predict_slide(open_pyramid(path), model)
        whole.append(time.process_time() - started)
        seen = look_at(open_pyramid(path), model)
        started = time.process_time()
        seen.likeness(model)
        score.append(time.process_time() - started)
    return {"predict": median(whole), "score": median(score), "ratio": median(score) / median(whole)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--slides", type=int, default=64)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--draws", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.cohort or Path(temporary)
        slides = read_training_table(make_cohort(folder, slides=given.slides, size=given.size)).slides
        thumbnails: list[Thumbnail] = [read_thumbnail(open_pyramid(slide.path), MPP) for slide in slides]
        demo = [(one.rgb, find_tissue(one).mask) for one in thumbnails]
        trained = [appearance(*one) for slide, one in zip(slides, demo, strict=True) if slide.split == "train"]
        cohort = cohort_appearance(trained)
        others = [slide.path for slide in slides if slide.split != "train"]
        spent = cost(others[:8], cohort)
    result: dict[str, Any] = {"benchmark": "appearance", "trained_on": len(trained), "cost": spent}
    split = [
        cohort.compare(appearance(*one)) for slide, one in zip(slides, demo, strict=True) if slide.split != "train"
    ]
    result["own_split"] = {"slides": len(split), "warned": sum(one.warning is not None for one in split)}
    for title, pictures, stains in (
        ("demo", demo, color.hdx_from_rgb),
        ("CRCHistoPhenotypes", crops(), color.hed_from_rgb),
    ):
        if pictures:
            found = {
                name: [appearance(change(rgb), mask) for rgb, mask in pictures]
                for name, change in changes(stains).items()
            }
            result[title] = rates(found, given.draws)
            show(f"{title}: {len(pictures)} slides", result[title])
    result["real"] = real(cohort)
    print(f"\nagainst the {len(trained)} slides that the demo trains on")
    for name, told in result["real"].items():
        print(f"{name}: {told['score']}: {told['warning']}")
    print(f"of the demo's {len(split)} other slides {result['own_split']['warned']} are warned of")
    print(f"the score takes {spent['score'] * 1e3:.1f} ms, a prediction {spent['predict']:.2f} s: {spent['ratio']:.2%}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
