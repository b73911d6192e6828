"""A setting of megapixel MNIST, from its configuration, and its images as the models take them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
import yaml
from pydantic import Field

from benchmarks.paper.config import Networks, Row, Section, Training
from benchmarks.paper.fitting import Fitting
from benchmarks.paper.layers import Batch
from benchmarks.paper.mnist import SparseImages, Split, load_digits, make_images


class Megapixel(Section):
    """A setting of the task."""

    revision: int = Field(description="Raise it when the code changes what is computed: older records then lapse.")
    side: int = Field(description="Pixels along an image's side.")
    view: int = Field(description="Pixels along the low view's side.")
    noise: Literal["over", "under"] = Field(description="Strokes over the digits or under them.")
    strokes: int
    images: dict[Split, int] = Field(description="Images of each split.")
    seed: int = Field(default=0, description="Of the images.")
    networks: Networks
    training: Training
    rows: dict[str, Row]

    def fitting(self, row: Row) -> Fitting:
        """How a row is trained."""
        return row.fitting(self.training)

    def digest(self, name: str, split: Split) -> str:
        """Of everything in this file that a row's result on a split depends on."""
        row = self.rows[name]
        # without defaults, so that a new option leaves the digests of rows that do not use it
        relevant = self.model_dump(mode="json", exclude={"rows", "training", "images"}, exclude_defaults=True)
        relevant["row"] = row.model_dump(mode="json", exclude={"title", "training", "repeats"}, exclude_defaults=True)
        relevant["training"] = asdict(self.fitting(row))
        relevant["images"] = (self.images["train"], split, self.images[split])
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]


def read_setting(path: Path) -> Megapixel:
    """Read a configuration; unknown keys and bad values are errors that name them."""
    return Megapixel.model_validate(yaml.safe_load(path.read_text()))


class Source:
    """Images by number as a kind of row takes them: all their pixels, or patches on demand and a low view."""

    def __init__(self, images: SparseImages, view: int, *, dense: bool) -> None:
        self.images, self.view, self.dense = images, view, dense

    def __call__(self, items: Sequence[int], generator: torch.Generator | None) -> Batch:
        chosen = self.images[torch.tensor(list(items), device=self.images.labels.device)]
        return Batch(chosen.dense()) if self.dense else Batch(chosen, chosen.low(self.view))


def make_splits(setting: Megapixel, data: Path, splits: Sequence[Split], device: str) -> dict[Split, SparseImages]:
    """The images of each split, on the device."""
    return {
        split: make_images(
            load_digits(data / "mnist", split),
            split,
            setting.images[split],
            side=setting.side,
            noise=setting.noise,
            strokes=setting.strokes,
            seed=setting.seed,
        ).to(device)
        for split in splits
    }
