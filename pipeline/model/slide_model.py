"""What every model of slides has in common: it attends, draws, reads what was drawn and says what it adds up to."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.model.quality import Quality
from pipeline.model.reading import of_each, read_together, walk
from pipeline.model.regions import by_region, joint_attention, look_inside, nested_draw, places, shares
from pipeline.model.values import AttentionMap, ModelSpec, Outcome, PlacedDraw, Sampled, View
from stages.appearance import CohortAppearance
from stages.attention import Attention, ThumbnailAttention
from stages.prediction.intervals import Calibration, Evidence, Stages, weigh
from stages.prediction.predict import Prediction, predict
from stages.sampling.blocks import block_cells, draw_blocks
from stages.sampling.designs import Draw
from stages.sampling.draw import draw, draw_judged, drawing_device
from stages.sampling.estimate import entropy, hard_bound
from stages.sampling.schemes import DEFAULT, SCHEMES

_log = logging.getLogger(__name__)

ENCODER_BLOCK = 256
"""Patches in memory at once at prediction, whatever the budget."""

PRIOR_SHARE = 0.5
"""Share of the draw that goes by a map that was given: at worst it costs as much as half of the patches."""


class SlideModel(nn.Module):
    """Slide-level logits as an unbiased estimate of the model that reads every patch.

    A model says how it attends to a slide (`attend`) and what features patches have (`encode`, `features_of`); what is
    drawn, read and concluded is the same for all.

    Attributes:
        spec: what it is, but for the weights.
        attention: gives the cells' places and, where it is learned from the thumbnail, the attention.
        inner: the second look's attention; None: one level.
        feature_dim: length of what `encode` gives.
        calibration: of its intervals; None: what a draw tells by itself.
        trained_on: fingerprints of the slides whose labels it was fitted to.
        quality: how good it was found to be, and whether it has learned; None: nobody looked.
        appearance: how these slides look; None: not known.
    """

    attention: Attention
    inner: ThumbnailAttention | None
    feature_dim: int

    def __init__(
        self,
        spec: ModelSpec,
        *,
        calibration: Calibration | None = None,
        trained_on: Iterable[str] = (),
        appearance: CohortAppearance | None = None,
        quality: Quality | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.calibration = calibration
        self.trained_on = frozenset(trained_on)
        self.appearance = appearance
        self.quality = quality

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def drawing_device(self) -> torch.device:
        """Where attention, draws and what they add up to are, in float64: there, or on the CPU."""
        return drawing_device(self.device)

    def attend(
        self, view: View, *, generator: torch.Generator | None = None, noise: float = 0.0, dropout: float = 0.0
    ) -> AttentionMap:
        """Attention that sums to one over the tissue, and what it makes of patches.

        Args:
            view: the slide.
            generator: of what training leaves to chance here.
            noise: added to the features of a frozen encoder, as a share of their spread; in training only.
            dropout: share of their directions that a member does without; in training only.
        """
        raise NotImplementedError

    def encode(self, view: View, cells: NDArray[np.int64]) -> Tensor:
        """Features (M, D) of the cells' patches, without gradients."""
        raise NotImplementedError

    def features_of(
        self, views: Sequence[View], drawn: Sequence[PlacedDraw], augment: Callable[[Tensor], Tensor] | None
    ) -> list[Tensor]:
        """Features (N, D) of single draws, as training has them."""
        raise NotImplementedError

    def attend_all(
        self,
        views: Sequence[View],
        *,
        generator: torch.Generator | None = None,
        noise: float = 0.0,
        dropout: float = 0.0,
    ) -> list[AttentionMap]:
        """`attend` of each."""
        return of_each(views, lambda view: self.attend(view, generator=generator, noise=noise, dropout=dropout))

    def forward(
        self,
        views: Sequence[View],
        *,
        samples: int,
        generator: torch.Generator,
        scheme: str | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        noise: float = 0.0,
        dropout: float = 0.0,
    ) -> Outcome:
        """One draw of each slide of a batch; ``samples`` of 0: what is known without any patch.

        Patches are varied by ``augment``, features of a frozen encoder by ``noise`` and ``dropout``: see `attend`.

        The patches of all slides are read together, by dask on threads, and encoded together.
        """
        maps = self.attend_all(views, generator=generator, noise=noise, dropout=dropout)
        if not samples:
            known = torch.stack([one.known for one in maps])
            entropies = torch.stack([entropy(one.log_attention[None])[0] for one in maps])
            return Outcome(known, entropies, known.new_zeros(()))
        drawn = self.draw(views, maps, samples=samples, generator=generator, scheme=scheme, judged=False)
        features = self.features_of(views, drawn, augment)
        logits = [one.logits(one.say(part[None])) for one, part in zip(drawn, features, strict=True)]
        errors = [m.error(one.cells[0], f) for m, one, f in zip(maps, drawn, features, strict=True) if m.error]
        return Outcome(
            torch.cat(logits),
            torch.cat([one.entropy for one in drawn]),
            torch.stack(errors).mean() if errors else logits[0].new_zeros(()),
        )

    @torch.no_grad()
    def sample(
        self,
        view: View,
        *,
        generator: torch.Generator,
        samples: int | None = None,
        scheme: str | None = None,
        tolerance: float | None = None,
    ) -> Sampled:
        """Predict one slide from one draw, or from ever larger ones until it is sure enough.

        With a ``tolerance`` the first draw has the model's own budget and each further one up to twice the last, until
        no class's interval reaches farther than ``tolerance`` from its probability, or until its scheme tells no
        interval of a larger draw (`Scheme.most_judged`), which is logged. Patches are kept: none is read twice, and no
        region is looked into twice. Each of at most J draws has an interval of confidence ``1 - 0.05 / J``, so that all
        hold together in 95 % of slides, and stopping at any of them is fair (Bonferroni).

        Args:
            view: the slide.
            generator: on the model's `drawing_device`.
            samples: patches to read at most; default: the model's budget, or with a tolerance the whole tissue.
            scheme: how to draw; default: the model's.
            tolerance: see above; None draws once.
        """
        attention = self.attend(view)
        tissue = int(view.tissue.sum())
        most = min(tissue, samples or tissue)
        limit = SCHEMES[scheme or self.spec.scheme].most_judged
        if tolerance is not None and limit is not None and tissue > limit:
            most = min(most, limit)  # no larger draw would tell how sure it is
        budget = (samples or self.spec.samples) if tolerance is None else min(self.spec.samples, most)
        draws = 1 if tolerance is None else 1 + math.ceil(math.log2(most / budget))
        known: dict[int, Tensor] = {}
        opened: dict[int, Tensor] = {}
        while True:
            (drawn,) = self.draw(
                [view], [attention], samples=budget, generator=generator, scheme=scheme, opened=[opened]
            )
            wanted = drawn.cells[0].tolist()
            new = sorted(set(wanted) - known.keys())
            if new:
                known.update(zip(new, self.encode(view, np.array(new)), strict=True))
            features = torch.stack([known[cell] for cell in wanted])
            prediction = self.judge(drawn, features, confidence=1 - 0.05 / draws)
            # all the tissue may be read again in part; less than that is a budget to keep
            next_budget = min(2 * budget, tissue if most == tissue else most - len(known))
            if tolerance is None or prediction.reach <= tolerance or next_budget <= budget:
                break
            budget = next_budget
        if tolerance is not None and prediction.reach > tolerance and not samples and most < tissue:
            _log.warning(
                "the tolerance %g is not reached: %s tells no interval beyond %d of the slide's %d patches, and it "
                "still reaches %.3f; use --scheme %s",
                *(tolerance, scheme or self.spec.scheme, most, tissue, prediction.reach, DEFAULT),
            )
        log_attention = self._all_attention(view, attention, opened)
        cells = torch.tensor(sorted(known), device=log_attention.device)
        weights = torch.zeros(log_attention.numel(), dtype=torch.float64, device=cells.device)
        weights.index_add_(0, drawn.cells[0], drawn.draw.weights[0])
        return Sampled(
            log_attention,
            cells.cpu().numpy(),
            weights[cells].cpu().numpy(),
            torch.stack([known[cell] for cell in sorted(known)]).float().cpu().numpy(),
            np.array(sorted(opened), np.int64),
            prediction,
            float(hard_bound(log_attention[None], Draw(cells[None], torch.ones_like(cells[None])))[0]),
        )

    def draw(
        self,
        views: Sequence[View],
        maps: Sequence[AttentionMap],
        *,
        samples: int,
        generator: torch.Generator,
        scheme: str | None = None,
        judged: bool = True,
        repeats: int = 1,
        opened: Sequence[dict[int, Tensor]] | None = None,
    ) -> list[PlacedDraw]:
        """Draw at most ``samples`` cells of each slide, ``repeats`` times; `judged`, such that they also tell how sure
        they are.

        With two levels the drawn regions of all slides are looked into together; what ``opened`` holds for a slide
        (region -> log attention inside it) is used and added to, so that no region is looked into twice.
        """
        maps = [self._by_prior(*one) for one in zip(views, maps, strict=True)]
        name = scheme or self.spec.scheme
        take = partial(draw_judged if judged else draw, scheme=name, generator=generator)
        if self.inner is None:
            return self._draw_cells(views, maps, take, samples, repeats=repeats, judged=judged)
        outers, counts = [], []
        for view, attention in zip(views, maps, strict=True):
            rows, columns = (n // self.spec.region_cells for n in view.tissue.shape)
            regions, count = self._shares(view, attention, samples)
            log_a = attention.log_attention.detach().expand(repeats, -1)
            outers.append(take(log_a, regions, order=self._order(rows, columns)))
            counts.append(count)
        insides = self._look_inside(views, [outer.cells.flatten() for outer in outers], opened)
        order = self._order(self.spec.region_cells, self.spec.region_cells)
        return [
            nested_draw(
                attention,
                inside,
                self._places(view),
                outer=outer,
                inner=take(inside.detach(), count, order=order),  # of (B R) regions
                repeats=SCHEMES[name].repeats,
            )
            for view, attention, outer, count, inside in zip(views, maps, outers, counts, insides, strict=True)
        ]

    def _by_prior(self, view: View, attention: AttentionMap) -> AttentionMap:
        if view.prior is None:
            return attention
        prior = torch.from_numpy(view.prior.ravel()).to(self.drawing_device)
        return attention.drawn_by(prior, PRIOR_SHARE)

    def _draw_cells(
        self,
        views: Sequence[View],
        maps: Sequence[AttentionMap],
        take: Callable[..., Draw],
        samples: int,
        *,
        repeats: int,
        judged: bool,
    ) -> list[PlacedDraw]:
        log_as = [attention.log_attention.expand(repeats, -1) for attention in maps]
        if self.spec.block > 1:
            drawn_blocks = [
                self._draw_blocks(view, log_a.detach(), take, samples, judged=judged)
                for view, log_a in zip(views, log_as, strict=True)
            ]
            return self._placed(log_as, maps, drawn_blocks)
        sizes = {view.tissue.shape for view in views}
        if not judged and repeats == 1 and len(sizes) == 1 and all(view.tissue.sum() > samples for view in views):
            # slides of one size are drawn together: what each draws alone, in the time of one
            many = take(torch.cat(log_as).detach(), samples, order=self._order(*sizes.pop()))
            draws = [Draw(*one) for one in zip(many.cells.split(1), many.weights.split(1), strict=True)]
        else:
            orders = [self._order(*view.tissue.shape) for view in views]
            draws = [take(log_a.detach(), samples, order=o) for log_a, o in zip(log_as, orders, strict=True)]
        return self._placed(log_as, maps, draws)

    def _draw_blocks(
        self, view: View, log_attention: Tensor, take: Callable[..., Draw], samples: int, *, judged: bool
    ) -> Draw:
        """Blocks of at most ``samples`` cells, or all of them where the tissue is no more; a variance needs two."""
        side, (rows, columns) = self.spec.block, view.tissue.shape
        cells = block_cells(rows, columns, side).to(self.drawing_device)
        whole = view.tissue.sum() <= samples
        count = len(cells) if whole else max(samples // side**2, 2 if judged else 1)
        order = self._order(-(-rows // side), -(-columns // side))
        return draw_blocks(log_attention, count, cells=cells, order=order, take=take)

    def _placed(self, log_as: list[Tensor], maps: Sequence[AttentionMap], draws: list[Draw]) -> list[PlacedDraw]:
        placed = []
        for log_a, attention, drawn in zip(log_as, maps, draws, strict=True):
            everywhere = torch.arange(log_a.shape[1], device=self.drawing_device).expand(len(log_a), -1)
            own = log_a if attention.shown is None else attention.shown.expand_as(log_a)
            placed.append(PlacedDraw(drawn, log_a, everywhere, attention, entropy(own)))
        return placed

    def evidence(self, drawn: PlacedDraw, features: Tensor) -> Evidence:
        """What the features (B, N, D) of drawn cells, in their order, tell about the log-odds."""
        return weigh(*self._weighed(drawn, features), cells=drawn.cells, stages=self._stages(drawn))

    def judge(self, drawn: PlacedDraw, features: Tensor, *, confidence: float = 0.95) -> Prediction:
        """Prediction from the features (N, D) of drawn cells, in their order."""
        parts = (values[0] for values in self._weighed(drawn, features[None]))
        options: dict[str, Any] = {"cells": drawn.cells[0], "stages": self._stages(drawn), "confidence": confidence}
        return predict(*parts, calibration=self.calibration, **options)

    def tissue_by_region(self, view: View) -> Tensor:
        """Which cells of each region are tissue, (regions, cells of a region)."""
        return by_region(torch.from_numpy(view.tissue).to(self.drawing_device), self.spec.region_cells).flatten(0, 1)

    @torch.no_grad()
    def _weighed(self, drawn: PlacedDraw, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, C), how they move with each patch (B, N, C), and contrasts times attention (B, H, N)."""
        assert drawn.draw.contrasts is not None, "the draw must be judged"
        attention = drawn.log_attention.double().exp().gather(1, drawn.draw.cells)
        logits, moves = drawn.logits(drawn.say(features)), drawn.moves(features)
        return logits.mean(1), moves.mean(2), drawn.draw.contrasts * attention.unsqueeze(1)

    def _stages(self, drawn: PlacedDraw) -> Stages | None:
        """Which patches are of one region or block; None where cells are drawn one by one."""
        taken = drawn.draw
        if not taken.regions:
            return None
        shares = taken.weights * drawn.log_attention.detach().double().exp().gather(1, taken.cells)
        # by their first cell: of those that could be drawn, or of a block, which is read whole
        first = drawn.cells if self.inner is None else drawn.places
        regions = first.unflatten(1, (taken.regions, -1))[..., 0]
        return Stages(regions, shares.unflatten(1, (taken.regions, -1)), taken.between)

    def _shares(self, view: View, attention: AttentionMap, samples: int) -> tuple[int, int]:
        return shares(
            samples,
            tissue=int(view.tissue.sum()),
            regions=int((attention.log_attention > -torch.inf).sum()),
            each=self.spec.region_samples,
            size=self.spec.region_cells**2,
        )

    def _look_inside(
        self, views: Sequence[View], regions: Sequence[Tensor], opened: Sequence[dict[int, Tensor]] | None
    ) -> list[Tensor]:
        assert self.inner is not None
        tissues = [self.tissue_by_region(view) for view in views]
        return look_inside(self.inner, views, regions, tissues, opened or [{} for _ in views], self.device)

    def _all_attention(self, view: View, attention: AttentionMap, opened: dict[int, Tensor]) -> Tensor:
        """Log attention of all cells as far as it is known, (rows * columns,)."""
        if self.inner is None:
            return attention.log_attention if attention.shown is None else attention.shown
        return joint_attention(attention.log_attention, opened, self.tissue_by_region(view), self._places(view))

    def _places(self, view: View) -> Tensor:
        return places(view.tissue.shape, self.spec.region_cells, self.drawing_device)

    def _order(self, rows: int, columns: int) -> Tensor:
        return walk(rows, columns).to(self.drawing_device)

    def read_drawn(self, views: Sequence[View], drawn: Sequence[PlacedDraw]) -> list[Tensor]:
        """Patches (N, P, P, 3) of single draws, of all slides together."""
        return read_together(
            [(view.patches, one.cells[0]) for view, one in zip(views, drawn, strict=True)], self.device
        )
