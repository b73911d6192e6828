"""The comparison of ways to read slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.arguments import AnyPath
from pipeline.commands.slides import given_cohort
from pipeline.errors import computing

if TYPE_CHECKING:
    from pipeline.bench.bench import BenchProgress, BenchSummary
    from pipeline.cohort.cohort import Cohort


@computing()
def bench(
    model: AnyPath,
    target: Cohort | AnyPath,
    *,
    out: AnyPath,
    samples: Sequence[int] | None = None,
    draws: int = 20,
    slides: int | None = None,
    tolerances: Sequence[float] = (0.1, 0.05, 0.02),
    label: str = "label",
    split: str | None = None,
    seed: int = 0,
    device: str = "auto",
    encoder_weights: AnyPath | None = None,
    features: AnyPath | None = None,
    progress: BenchProgress | None = None,
    within: Callable[[str], None] | None = None,
) -> BenchSummary:
    """Find how many patches a cohort needs: draw its unseen slides in several ways, again and again, and tell how near
    each comes to reading everything, and what it costs.

    Every tissue patch of every slide is read and encoded once, which takes as long as reading everything does; with a
    frozen encoder its features are kept, so that it takes that long only once.

    Args:
        model: the checkpoint's path, or its folder's.
        target: a cohort table with labels, by its path, or what `read_cohort` gave; slides that the model was trained
            on, or that the table says are to train or to choose with, are left out.
        out: the folder for bench.csv, bench.json and bench.png; made where it is missing.
        samples: patches a slide to try; default: powers of two from 4 to 512, and the model's own number.
        draws: of each slide and number of patches.
        slides: at most so many, chosen at random, of every class alike; default: all.
        tolerances: those of `predict` to try.
        label: the table's column of labels.
        split: only slides of this split of the table, such as "val"; default: those of test, or of no split.
        seed: of the draws, and of the choice of slides.
        device: see `load_model`.
        encoder_weights: see `load_model`.
        features: see `run`.
        progress: called with (slides finished, slides in all, a line about the last one).
        within: called with a line about how far the slide is that is being read.

    Raises:
        UsageError: nothing was started, because the model, the table or the folder cannot be used, or no slide is left
            to compare on.

    Examples:
        >>> import saccade
        >>> summary = saccade.bench("model.safetensors", "slides", out="bench", samples=[8, 32], draws=3)
        >>> [row["way"] for row in summary.rows][:3], summary.slides
        (['everything', 'attention', 'attention'], 3)
    """
    cohort = given_cohort(target, label=label)
    from pipeline.bench.bench import bench_cohort

    return bench_cohort(
        cohort,
        Path(model),
        Path(out),
        samples=samples,
        draws=draws,
        slides=slides,
        split=split,
        tolerances=tolerances,
        seed=seed,
        device=device,
        encoder_weights=None if encoder_weights is None else Path(encoder_weights),
        features=None if features is None else Path(features),
        progress=progress,
        within=within,
    )
