"""The model that reads everything: a frozen encoder over every tissue cell, and a head over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.frozen import fine_features
from pipeline.model.reading import by_part
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import AttentionMap, Outcome, PlacedDraw, Sampled, View
from stages.attention import UniformAttention
from stages.augmentation import augment_features
from stages.context import Whitening, standardised
from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard
from stages.encoder.feature_store import FeatureStore
from stages.evidence import directions_kept
from stages.mil.build import build_pooling
from stages.mil.pooling import Pooled
from stages.prediction.predict import Prediction
from stages.prediction.readout import Readout
from stages.prediction.stopping import Decide
from stages.sampling.designs import Draw


class ExhaustiveModel(SlideModel):
    """Multiple-instance learning on all cells of a slide: the baseline that sampling is measured against.

    Features of every tissue cell, in the directions in which they vary most, go through K members of a head
    (`stages.mil`), whose logits are averaged by their shares. Nothing is drawn: logits are exact, and their intervals,
    which are about what was not read, have no width.

    Args:
        spec: its scale and sizes; ``head`` says which head.
        backbone: the frozen encoder; of a model of bags a name for it, until pixels are to be encoded.
        store: where features are kept; None: every cell is encoded again each time.
    """

    def __init__(self, spec: ModelSpec, *, backbone: Backbone, store: FeatureStore | None = None, **known: Any) -> None:
        super().__init__(spec, **known)
        assert spec.head is not None
        self.attention = UniformAttention(cell_px=spec.cell_px)
        self.inner = None
        self.store = store
        self.feature_dim = backbone.dim
        self._frozen = (backbone,)  # no module of this one: its weights are another's, and no part of the checkpoint
        self.whitening = Whitening(backbone.dim, spec.components)
        self.heads = build_pooling(
            spec.head,
            members=spec.members,
            classes=self.readout.outputs,
            components=len(self.whitening.basis),
            sides=spec.context,
        )

    @property
    def card(self) -> EncoderCard:
        """Of the encoder."""
        return self.backbone.card

    @property
    def backbone(self) -> Backbone:
        """The encoder."""
        return self._frozen[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExhaustiveModel:
        self.backbone._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def encode(self, view: View, cells: NDArray[np.int64]) -> Tensor:
        """Features (M, D) of the cells' patches, as the encoder gives them, or as a bag has them."""

        def own(one: View, some: NDArray[np.int64]) -> Tensor:
            return fine_features(self.backbone, one, some, store=self.store, device=self.device)

        return by_part(view, cells, own)

    def encode_all(self, view: View) -> Tensor:
        """Features (n, D) of all tissue cells."""
        return self.encode(view, np.flatnonzero(view.tissue))

    def features_of(
        self,
        views: Sequence[View],
        drawn: Sequence[PlacedDraw],
        vary: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None,
    ) -> list[Tensor]:
        """Features (N, D) of single draws."""
        return [self.encode(view, one.cells[0].cpu().numpy()) for view, one in zip(views, drawn, strict=True)]

    def components(self, view: View, features: Tensor) -> Tensor:
        """Features (n, D) of all cells -> what the head is given of them, (n, r), each slide's by itself."""
        found: Tensor = self.whitening(features)
        if not self.heads.standardised:
            return found
        own = found.split([int(one.tissue.sum()) for one in view.each])
        return torch.cat([standardised(one) for one in own])

    def attend(
        self, view: View, *, generator: torch.Generator | None = None, noise: float = 0.0, dropout: float = 0.0
    ) -> AttentionMap:
        """Where the head looked, and logits that are exact: of each member in training, else of all with one voice."""
        features = self.encode_all(view)
        return self.ask(view, features, generator=generator, noise=noise, dropout=dropout, each=self.training)

    def ask(
        self,
        view: View,
        features: Tensor,
        *,
        each: bool,
        generator: torch.Generator | None = None,
        noise: float = 0.0,
        dropout: float = 0.0,
    ) -> AttentionMap:
        """As `attend`, from the features (n, D) of all tissue cells; ``each`` member for itself, or with one voice."""
        keep, there = None, self.drawing_device
        components = self.components(view, features)
        if self.training and generator is not None:
            components = augment_features(components, components.std(0), generator, noise=noise, dropout=0)
            keep = directions_kept(self.spec.members, len(self.whitening.basis), dropout, generator).to(self.device)
        tissue = torch.from_numpy(view.tissue).to(self.device)
        found: Pooled = self.heads(components, tissue, keep)
        share = self.heads.share[:, None]
        mean = (found.log_attention + share.log()).to(there).double().logsumexp(0).log_softmax(0)
        log_a = torch.full((view.tissue.size,), -torch.inf, dtype=torch.float64, device=there)
        log_a = log_a.masked_scatter(tissue.flatten().to(there), mean)
        logits = found.logits if each else (share * found.logits).sum(0, keepdim=True)

        def say(cells: Tensor, features: Tensor) -> Tensor:
            return logits.new_zeros((*cells.shape, *logits.shape)).to(there)

        def shares() -> Tensor:
            out = torch.zeros(view.tissue.size, 1, logits.shape[1], dtype=torch.float64, device=there)
            parts = self.heads.shares(components, tissue)
            out[tissue.flatten().to(there), 0] = torch.einsum("k,knc->nc", self.heads.share, parts).to(out)
            return out

        return AttentionMap(log_a, logits.to(there), say, shares=None if each else shares)

    def forward(
        self,
        views: Sequence[View],
        *,
        samples: int,
        generator: torch.Generator | Sequence[torch.Generator],
        scheme: str | None = None,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        noise: float = 0.0,
        dropout: float = 0.0,
        draws: Sequence[Draw] | None = None,
    ) -> Outcome:
        """All cells of each slide of a batch, whatever else is asked for."""
        return super().forward(views, samples=0, generator=generator, noise=noise, dropout=dropout)

    @torch.no_grad()
    def sample(
        self,
        view: View,
        *,
        generator: torch.Generator,
        samples: int | None = None,
        scheme: str | None = None,
        tolerance: float | None = None,
        decide: Decide | None = None,
    ) -> Sampled:
        """Predict one slide from all its cells; any tolerance is met, and nothing is undecided.

        Raises:
            ValueError: ``samples`` or ``scheme`` is given, which say how to draw.
        """
        if samples is not None or scheme is not None:
            raise ValueError("the model reads every cell: leave out samples and scheme")
        features = self.encode_all(view)
        return exact(view, self.ask(view, features, each=False), features, readout=self.readout, decide=decide)


def exact(view: View, found: AttentionMap, features: Tensor, *, readout: Readout, decide: Decide | None) -> Sampled:
    """What is said of a slide of which nothing is left to chance.

    Args:
        view: the slide.
        found: its map, all of whose logits are known.
        features: (n, D), of all its tissue cells.
        readout: what is told of logits.
        decide: on which side of a threshold it lies, or None.
    """
    logits = found.known[0].cpu().double()
    values = readout.told(logits)
    cells = np.flatnonzero(view.tissue)
    return Sampled(
        found.log_attention,
        cells,
        np.ones(len(cells)),
        features.float().cpu().numpy(),
        np.empty(0, np.int64),
        Prediction(values, values, values, logits, torch.zeros_like(readout.statistics(logits))),
        0.0,
        adds=torch.zeros(len(cells), len(logits), dtype=torch.float64),
        own=torch.zeros(len(cells), len(logits), dtype=torch.float64),
        spread=torch.zeros(len(cells), dtype=torch.float64),
        foretold=None if found.shares is None else found.shares().mean(1),
        side=None if decide is None else decide.beside(readout.statistics(logits).tolist(), readout=readout),
    )
