"""One fold of one row of the colon-cancer task: trained on its images, judged on the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from benchmarks.paper.colon_images import (
    Colon,
    ColonViews,
    WholeImages,
    assign_folds,
    block_folds,
    colour_quantiles,
    focus,
)
from benchmarks.paper.config import ColonTask, Row
from benchmarks.paper.contrast import learn_to_tell_apart
from benchmarks.paper.frozen import FrozenViews, build_frozen, train_frozen
from benchmarks.paper.layers import area_average
from benchmarks.paper.records import auroc
from benchmarks.paper.views import EncoderOnInk, build_sampler, predict_sampler, train_sampler
from benchmarks.paper.whole import build_whole, fit_whole, predict_whole
from pipeline.model.reading import image
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.train.warm_up import WARM_UP_TEMPERATURE
from stages.attention import HematoxylinAttention
from stages.encoder.feature_store import default_feature_folder, feature_store


class Trainer:
    """Trains one fold of one row at a time, on a set that is turned and shrunk once."""

    def __init__(self, colon: Colon, task: ColonTask) -> None:
        self.colon, self.task = colon, task
        labels = colon.labels.tolist()
        self.folds = {
            "random": assign_folds(labels, task.folds, seed=task.fold_seed),
            "blocks": block_folds(len(labels), task.folds),
        }
        self._seen: dict[str, Any] = {}

    def views(self) -> ColonViews:
        """The images as the product's model sees them."""
        return self._once(
            "views", lambda: ColonViews(self.colon.images, self.task.sight, stain_jitter=self.task.stain_jitter)
        )

    def whole(self, kind: str) -> WholeImages:
        """The images as rows of a kind that reads everything see them."""
        return self._once(
            kind, lambda: WholeImages(images_of(self.colon.images, kind), stain_jitter=self.task.stain_jitter)
        )

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._seen:
            self._seen = {key: make()}  # one at a time: each holds the set, some eight times over
        return self._seen[key]

    def train(self, name: str, repeat: int, fold: int) -> dict[str, Any]:
        """The record of one fold: predictions of its test images, and where attention went on them."""
        row = self.task.rows[name]
        started = time.perf_counter()
        of = self.folds[row.folds]
        train, test = np.flatnonzero(of != fold).tolist(), np.flatnonzero(of == fold).tolist()
        kinds = {"forest": self._forest, "ats": self._sampler, "frozen": self._frozen}
        found = kinds.get(row.kind, self._whole)(row, train, test, 1000 * repeat + fold)
        return {
            "what": "fold",
            "row": name,
            "repeat": repeat,
            "fold": fold,
            "digest": self.task.digest(name),
            "images": [self.colon.names[i] for i in test],
            "labels": self.colon.labels[test].tolist(),
            "seconds": round(time.perf_counter() - started, 1),
            **found,
        }

    def _forest(self, row: Row, train: list[int], test: list[int], seed: int) -> dict[str, Any]:
        colours = self._once("colours", lambda: colour_quantiles(self.colon.images))
        forest = RandomForestClassifier(500, random_state=seed).fit(colours[train], self.colon.labels.numpy()[train])
        return {"probabilities": forest.predict_proba(colours[test])[:, 1].round(5).tolist()}

    def _whole(self, row: Row, train: list[int], test: list[int], seed: int) -> dict[str, Any]:
        source = self.whole(row.kind)
        model = build_whole(row, self.task.networks, seed=seed)
        if row.self_supervised:
            learn_to_tell_apart(
                model.encoder,
                self.colon.images,
                train,
                patch_px=self.task.networks.patch_px,
                steps=row.self_supervised,
                seed=seed,
            )
        training = self.task.training_of(row)
        loss = fit_whole(model, source, train, self.colon.labels[train], training, seed=seed, say=quiet)
        found = predict_whole(model, source, test, seed=seed, draws=row.draws, augmented=row.augmented)
        return {
            "probabilities": [round(p, 5) for p in found[:, 1].tolist()],
            "training_loss": round(loss, 5),
            "reads": model.reads,
        }

    def _sampler(self, row: Row, train: list[int], test: list[int], seed: int) -> dict[str, Any]:
        views = self.views()
        model, loss, samples = self.fitted(row, train, seed)
        found = predict_sampler(
            model, views, test, samples=samples, seed=seed, draws=row.draws, augmented=row.augmented
        )
        record: dict[str, Any] = {
            "probabilities": [round(p, 5) for p in found[:, 1].tolist()],
            "training_loss": loss,
            "reads": samples,
        }
        if row.attention == "learned":
            positive = [i for i in test if self.colon.labels[i] == 1]
            record["focus"] = {self.colon.names[i]: self._focus(model, views, i) for i in positive}
        return record

    def _frozen(self, row: Row, train: list[int], test: list[int], seed: int) -> dict[str, Any]:
        frozen = row.frozen
        assert frozen is not None
        views = self._once(f"frozen {frozen}", lambda: FrozenViews(self.colon.images, frozen))
        samples = 0 if row.exact else row.samples or frozen.cells**2
        labels, training = self.colon.labels[train], self.task.training_of(row)
        store = feature_store(default_feature_folder())
        model = build_frozen(frozen, scale=views.scale, samples=samples, store=store)
        loss, told = train_frozen(model, views, train, labels.tolist(), training, samples=samples, seed=seed, say=quiet)
        found = predict_sampler(model, views, test, samples=samples, seed=seed, draws=row.draws)
        positive = [i for i in test if self.colon.labels[i] == 1]
        return {
            "probabilities": [round(p, 5) for p in found[:, 1].tolist()],
            "training_loss": loss,
            "reads": samples,
            "out_of_bag": round(auroc(labels.numpy()[told.slides], told.values[:, 1].numpy()), 4),
            "focus": {self.colon.names[i]: self._focus(model, views, i) for i in positive},
        }

    def fitted(self, row: Row, train: list[int], seed: int) -> tuple[AttentionSampler, float, int]:
        """The product's model trained on some images, its training loss, and how many patches it reads of an image."""
        views = self.views()
        model = build_sampler(row, self.task.sight, self.task.networks, scale=views.scale, seed=seed)
        samples = row.samples or views(0, None).tissue.size
        if row.self_supervised:
            learn_to_tell_apart(
                EncoderOnInk(model.encoder),
                self.colon.images,
                train,
                patch_px=self.task.sight.patch_px,
                steps=row.self_supervised,
                seed=seed,
            )
        training, labels = self.task.training_of(row), self.colon.labels[train].tolist()
        return (
            model,
            train_sampler(model, views, train, labels, training, samples=samples, seed=seed, say=quiet),
            samples,
        )

    @torch.no_grad()
    def _focus(self, model: SlideModel, views: ColonViews | FrozenViews, index: int) -> list[float]:
        """Of a positive image, as `tables.FOCUS` names them."""
        view = views(index, None)
        stain = HematoxylinAttention(cell_px=views.sight.cell_px, temperature=WARM_UP_TEMPERATURE)
        attended = model.attend(view)
        shown = attended.log_attention if attended.shown is None else attended.shown
        maps = (shown, stain(image(view.rgb, model.device)).flatten().log_softmax(0))
        seen, by_stain = (
            focus(of_image.double().exp().numpy(), views.centres(), self.colon.nuclei[index]) for of_image in maps
        )
        return [round(value, 4) for value in (seen.mass, seen.chance, seen.any_nucleus, by_stain.mass)]


def images_of(images: Tensor, kind: str) -> Tensor:
    """The images that rows of a kind read: at half resolution for ``half``."""
    return area_average(images, 2).round().to(torch.uint8) if kind == "half" else images


def quiet(line: str) -> None:
    """The folds' own lines are enough."""
