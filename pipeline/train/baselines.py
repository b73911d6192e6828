"""Plain ways to read a slide, which a model is compared with: all cells, or some by a simple rule."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.cohort.cohort import CohortSlide
from pipeline.config.attention import AttentionConfig
from pipeline.model.look import Look
from pipeline.model.reading import image
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from pipeline.train.looks import Looks
from stages.attention import HematoxylinAttention
from stages.mil.build import HEADS

FIXED = 25
"""Cells of the baseline that reads the same ones of a slide, always."""

Rule = Literal["all", "random", "attention", "stain"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A plain way to read and to judge a slide at the finest scale.

    Attributes:
        name: in the table.
        head: see `stages.mil`; it is fitted to what the rule reads.
        rule: which cells are read: all of them; some at random, others in each step of training and one draw at
            prediction; those of the model's largest attention, which is biased; those with most hematoxylin on the
            thumbnail, the same ones always.
        cells: how many of them; None: all.
        context: sides of the squares that the evidence head sees a cell with.
    """

    name: str
    head: str
    rule: Rule
    cells: int | None = None
    context: tuple[int, ...] = ()


IN_WORDS = {"evidence": "evidence", "gated": "gated MIL", "mean": "mean", "transmil": "TransMIL"}


def baselines(spec: ModelSpec, samples: int) -> list[Baseline]:
    """What a model is compared with that reads ``samples`` patches; a model that reads all is not compared with itself,
    and has no attention before it has read. Bags, which have no stain to see and cost little to read whole, are read
    with every head."""
    if spec.bags is not None:
        context = AttentionConfig().context
        heads = [
            Baseline(f"all cells, {IN_WORDS[head]}", head, "all", context=context if head == "evidence" else ())
            for head in HEADS
            if head != spec.head
        ]
        return [*heads, Baseline(f"{samples} at random", "gated", "random", samples)]
    every = [
        *(Baseline(f"all cells, {IN_WORDS[head]}", head, "all") for head in ("gated", "mean")),
        Baseline(f"{samples} at random", "gated", "random", samples),
        Baseline(f"top {samples} by attention (biased)", "gated", "attention", samples),
        Baseline(f"fixed top {FIXED} by hematoxylin", "gated", "stain", FIXED),
    ]
    if not spec.exhaustive:
        return every
    return [one for one in every if one.rule in ("random", "stain") or (one.rule == "all" and one.head != spec.head)]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a baseline reads of slides: part of their tissue.

    Attributes:
        baseline: whose rule it is.
        model: what it is compared with, for its attention.
        looks: the slides' first looks.
        seed: of what is drawn at random.
        chosen: of the other rules, which cells were found to be read, by slide.
    """

    baseline: Baseline
    model: SlideModel
    looks: Looks
    seed: int
    chosen: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def look(self, slide: CohortSlide) -> Look:
        """What reading it costs is told by this look; of all tissue, the model's attention costs its survey."""
        found = self.looks(slide)
        return found if self.baseline.rule == "attention" else replace(found, surveyor=None, insider=None, prior=None)

    def view(self, slide: CohortSlide, turn: int = 0) -> View:
        """The part that is read; ``turn`` is of the draws at random."""
        found = self.looks(slide)
        if self.baseline.rule == "random":
            told = hashlib.sha256(f"{self.seed}:{turn}:{found.slide.facts.fingerprint}".encode()).digest()
            random = np.random.default_rng(int.from_bytes(told[:8], "big"))
            return replace(found.view, tissue=_some(found.tissue, random.random(found.tissue.shape), self.baseline))
        if slide.slide_id not in self.chosen:
            self.chosen[slide.slide_id] = self._chosen(found)
        return replace(found.view, tissue=self.chosen[slide.slide_id])

    @torch.no_grad()
    def _chosen(self, found: Look) -> NDArray[np.bool_]:
        if self.baseline.rule == "all":
            return found.tissue
        if self.baseline.rule == "stain":
            stained = HematoxylinAttention(cell_px=self.model.spec.cell_px)(image(found.view.rgb, torch.device("cpu")))
            return _some(found.tissue, stained.numpy(), self.baseline)
        attention = self.model.attend(found.view)
        shown = attention.log_attention if attention.shown is None else attention.shown
        return _some(found.tissue, shown.reshape(found.tissue.shape).cpu().numpy(), self.baseline)


def _some(tissue: NDArray[np.bool_], score: NDArray[Any], baseline: Baseline) -> NDArray[np.bool_]:
    """The tissue cells of the largest scores."""
    cells = np.flatnonzero(tissue)
    best = cells[np.argsort(-score.ravel()[cells], kind="stable")[: baseline.cells]]
    chosen = np.zeros(tissue.size, bool)
    chosen[best] = True
    return chosen.reshape(tissue.shape)
