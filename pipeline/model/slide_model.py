"""What every model of slides has in common: it attends, draws, reads what was drawn and says what it adds up to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.model.label_calibration import LabelCalibration
from pipeline.model.quality import Quality
from pipeline.model.reading import of_each, read_together
from pipeline.model.reading_on import Reading, look_totals
from pipeline.model.regions import by_region, joint_attention, look_inside, nested_draw, places, shares
from pipeline.model.spec import ModelSpec
from pipeline.model.stack import Stack, walk
from pipeline.model.values import AttentionMap, Outcome, PlacedDraw, Sampled, View
from pipeline.stopwatch import stage
from stages.appearance import CohortAppearance
from stages.attention import Attention, ThumbnailAttention
from stages.encoder.card import EncoderCard
from stages.heap import give_back
from stages.prediction.intervals import UNFITTED, Calibration, Evidence, Stages, weigh
from stages.prediction.predict import Prediction, predict
from stages.prediction.readout import build_readout
from stages.prediction.stopping import Decide, Side, first_look
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
        readout: what is told of its logits.
        attention: gives the cells' places and, where it is learned from the thumbnail, the attention.
        inner: the second look's attention; None: one level.
        feature_dim: length of what `encode` gives.
        calibration: of its intervals; None: what a draw tells by itself.
        trained_on: fingerprints of the slides whose labels it was fitted to.
        validated_on: of those that it was not fitted to, by whose labels its epoch was chosen.
        quality: how good it was found to be, and whether it has learned; None: nobody looked.
        appearance: how these slides look; None: not known.
        label_calibration: what sets of classes that hold the label are made by; None: nothing is.
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
        validated_on: Iterable[str] = (),
        appearance: CohortAppearance | None = None,
        quality: Quality | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.readout = build_readout(spec.task, spec.classes, spec.times)
        self.calibration = calibration
        self.trained_on = frozenset(trained_on)
        self.validated_on = frozenset(validated_on)
        self.appearance = appearance
        self.quality = quality
        self.label_calibration: LabelCalibration | None = None

    @property
    def card(self) -> EncoderCard | None:
        """Of its frozen encoder; None: it has none."""
        return None

    @property
    def several(self) -> bool:
        """Whether it is several models together."""
        return False

    def __repr__(self) -> str:
        spec = self.spec
        reads = f"{spec.samples} patches a slide" if spec.samples else "every patch of a slide"
        of = f"{spec.encoder}, {spec.patch_mpp:g} µm/px, {reads}"
        return f"<{type(self).__name__} of {', '.join(spec.classes)}: {of}>"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def drawing_device(self) -> torch.device:
        """Where attention, draws and what they add up to are, in float64: there, or on the CPU."""
        return drawing_device(self.device)

    def unseen(self, *fingerprints: str) -> SlideModel:
        """What predicts a slide of this content, or a patient's: the model itself, whatever it has seen; see
        `FoldEnsemble`."""
        return self

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

    def forget(self) -> None:
        """Let go of what is kept in memory of slides."""

    def encode(self, view: View, cells: NDArray[np.int64]) -> Tensor:
        """Features (M, D) of the cells' patches, without gradients."""
        raise NotImplementedError

    def features_of(
        self,
        views: Sequence[View],
        drawn: Sequence[PlacedDraw],
        vary: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None,
    ) -> list[Tensor]:
        """Features (N, D) of single draws, as training has them: of what ``vary`` makes of each slide's patches."""
        raise NotImplementedError

    def attend_all(
        self,
        views: Sequence[View],
        *,
        generators: Sequence[torch.Generator | None] | None = None,
        noise: float = 0.0,
        dropout: float = 0.0,
    ) -> list[AttentionMap]:
        """`attend` of each, with a generator of its own."""
        asked = zip(views, generators or [None] * len(views), strict=True)
        return of_each(asked, lambda one: self.attend(one[0], generator=one[1], noise=noise, dropout=dropout))

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
        """One draw of each slide of a batch; ``samples`` of 0: what is known without any patch.

        With a ``generator`` for each slide, what becomes of a slide does not depend on the others of its batch.

        With ``draws`` (1, N) of one level, which were made before by whatever attention, these are used.

        Patches are varied by ``augment``, features of a frozen encoder by ``noise`` and ``dropout``: see `attend`.

        The patches of all slides are read together, by dask on threads, and encoded together.
        """
        generators = _of_each_slide(generator, len(views))
        maps = self.attend_all(views, generators=generators, noise=noise, dropout=dropout)
        if not samples:
            known = torch.stack([one.known for one in maps])
            entropies = torch.stack([entropy(one.log_attention[None])[0] for one in maps])
            return Outcome(known, entropies, known.new_zeros(()))
        if draws is None:
            drawn = self.draw(views, maps, samples=samples, generator=generators, scheme=scheme, judged=False)
        else:
            maps = [self._by_prior(*one) for one in zip(views, maps, strict=True)]
            drawn = self._placed([one.log_attention[None] for one in maps], maps, draws)

        def vary(patches: Sequence[Tensor]) -> list[Tensor]:
            assert augment is not None
            return [augment(*one) for one in zip(patches, generators, strict=True)]

        features = self.features_of(views, drawn, None if augment is None else vary)
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
        decide: Decide | None = None,
    ) -> Sampled:
        """Predict one slide from one draw, or from look after look until it is sure enough.

        With a ``tolerance`` the first look has the model's own budget, and each further one doubles what is read, until
        no class's interval reaches farther than ``tolerance`` from its probability. To ``decide``, looks are as small
        as they may be at first (`first_look`), and end with the side of the threshold settled (`Decide`). Either ends
        where the scheme tells no interval of more (`Scheme.most_judged`); of a tolerance that is logged. Every read
        counts (`stages.sampling.looks`): no patch is read twice, and no region is looked into twice. At each of at most
        J looks intervals have confidence ``1 - 0.05 / J``, so that all hold together in 95 % of slides, and stopping at
        any of them is fair (Bonferroni).

        Args:
            view: the slide.
            generator: on the model's `drawing_device`.
            samples: patches to read at most; default: the model's budget, or with a tolerance or a decision the whole
                tissue.
            scheme: how to draw; default: the model's.
            tolerance, decide: see above, one of them at most; None draws once.
        """
        tissue = int(view.tissue.sum())
        most = min(tissue, samples or tissue)
        limit = SCHEMES[scheme or self.spec.scheme].most_judged
        totals = [samples or self.spec.samples]
        if tolerance is not None or decide is not None:
            if limit is not None and tissue > limit:
                most = min(most, limit)  # no larger draw would tell how sure it is
            first = self.spec.samples
            if decide is not None:
                first = first_look(self.calibration or UNFITTED, surveyed=self.spec.coarse_mpp is not None)
            totals = look_totals(max(first, self.spec.fewest), most, fewest=self.spec.fewest, tissue=tissue)
        with stage("attend"):
            attention, view = self._by_prior(view, self.attend(view)), replace(view, prior=None)
        give_back(*(one.rgb for one in view.each))  # what looking at the thumbnail took, before patches are encoded
        reading = Reading(view, attention, afresh=self.inner is not None)
        side: Side | None = None
        take = partial(self.draw, generator=generator, scheme=scheme, opened=[reading.opened])
        for drawn, features in reading.looks(totals, draw=take, encode=self.encode):
            prediction = self.judge(drawn, features, confidence=1 - 0.05 / len(totals))
            if decide is not None:
                evidence = self.evidence(drawn, features[None])
                side = decide.side(
                    evidence, len(features), self.calibration or UNFITTED, looks=len(totals), readout=self.readout
                )
            if side in ("above", "below") or (tolerance is not None and prediction.reach <= tolerance):
                break
        known, opened = reading.known, reading.opened
        if tolerance is not None and prediction.reach > tolerance and not samples and most < tissue:
            _log.warning(
                "the tolerance %g is not reached: %s tells no interval beyond %d of the slide's %d patches, and it "
                "still reaches %.3f; use --scheme %s",
                *(tolerance, scheme or self.spec.scheme, most, tissue, prediction.reach, DEFAULT),
            )
        return replace(
            self.conclude(view, attention, drawn, features, prediction, known=known, opened=opened), side=side
        )

    @torch.no_grad()
    def conclude(
        self,
        view: View,
        attention: AttentionMap,
        drawn: PlacedDraw,
        features: Tensor,
        prediction: Prediction,
        *,
        known: dict[int, Tensor],
        opened: dict[int, Tensor],
    ) -> Sampled:
        """All that is told of a slide after its last draw was read.

        Args:
            view, attention: the slide, and what the model made of it before.
            drawn, features: one draw, and features (N, D) of its cells, in their order.
            prediction: of that.
            known: features (D,) of all cells that were read.
            opened: log attention inside the regions that were looked into.
        """
        log_attention = self._all_attention(view, attention, opened)
        cells = torch.tensor(sorted(known), device=log_attention.device)
        weights = torch.zeros(log_attention.numel(), dtype=torch.float64, device=cells.device)
        weights.index_add_(0, drawn.cells[0], drawn.draw.weights[0])
        adds, own, spread = self._parts(drawn, features, torch.searchsorted(cells, drawn.cells[0]), len(cells))
        before = ~torch.isin(cells, drawn.cells[0])
        if before.any():  # with two levels, what only an earlier draw read
            said = attention.say(cells[before], torch.stack([known[cell] for cell in cells[before].tolist()]))
            own[before] = log_attention[cells[before]].double().exp()[:, None] * said.double().mean(1)
        return Sampled(
            log_attention,
            cells.cpu().numpy(),
            weights[cells].cpu().numpy(),
            torch.stack([known[cell] for cell in sorted(known)]).float().cpu().numpy(),
            np.array(sorted(opened), np.int64),
            prediction,
            float(hard_bound(log_attention[None], Draw(cells[None], torch.ones_like(cells[None])))[0]),
            adds=adds,
            own=own,
            spread=spread,
            foretold=None if attention.shares is None else attention.shares().mean(1),
        )

    def _parts(self, drawn: PlacedDraw, features: Tensor, place: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """What the patches of ``count`` cells add to the logits, with their weights and without, (count, C), and their
        shares of the variance (count,), of a draw of cells (1, N) that are at ``place`` (N,) among them."""
        contrasts = self._weighed(drawn, features[None])[2][0]
        said = drawn.say(features[None])[0].double().mean(1)
        attention = drawn.log_attention[0].double().exp()[drawn.draw.cells[0]]
        own = attention[:, None] * said
        adds = torch.zeros(count, said.shape[1], dtype=torch.float64, device=said.device)
        alone, spread = torch.zeros_like(adds), torch.zeros_like(adds[:, 0])
        alone[place] = own  # a cell that is drawn twice says the same
        adds.index_add_(0, place, drawn.draw.weights[0].unsqueeze(1) * own)
        spread.index_add_(0, place, contrasts.square().sum(0))
        return adds, alone, spread / spread.sum().clamp(min=torch.finfo(torch.float64).tiny)

    def draw(
        self,
        views: Sequence[View],
        maps: Sequence[AttentionMap],
        *,
        samples: int,
        generator: torch.Generator | Sequence[torch.Generator],
        scheme: str | None = None,
        judged: bool = True,
        repeats: int = 1,
        opened: Sequence[dict[int, Tensor]] | None = None,
    ) -> list[PlacedDraw]:
        """Draw at most ``samples`` cells of each slide, ``repeats`` times, by one generator or each slide by its own;
        `judged`, such that they also tell how sure they are.

        With two levels the drawn regions of all slides are looked into together; what ``opened`` holds for a slide
        (region -> log attention inside it) is used and added to, so that no region is looked into twice.
        """
        maps = [self._by_prior(*one) for one in zip(views, maps, strict=True)]
        name = scheme or self.spec.scheme
        generators = _of_each_slide(generator, len(views))
        take = partial(draw_judged if judged else draw, scheme=name)
        if self.inner is None:
            return self._draw_cells(views, maps, take, samples, generators=generators, repeats=repeats, judged=judged)
        outers, counts = [], []
        for view, attention, own in zip(views, maps, generators, strict=True):
            rows, columns = (n // self.spec.region_cells for n in view.tissue.shape)
            regions, count = self._shares(view, attention, samples)
            log_a = attention.log_attention.detach().expand(repeats, -1)
            outers.append(take(log_a, regions, order=self._order(rows, columns), generator=own))
            counts.append(count)
        insides = self._look_inside(views, [outer.cells.flatten() for outer in outers], opened)
        order = self._order(self.spec.region_cells, self.spec.region_cells)
        return [
            nested_draw(
                attention,
                inside,
                self._places(view),
                outer=outer,
                inner=take(inside.detach(), count, order=order, generator=own),  # of (B R) regions
                repeats=SCHEMES[name].repeats,
            )
            for view, attention, outer, count, inside, own in zip(
                views, maps, outers, counts, insides, generators, strict=True
            )
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
        generators: Sequence[torch.Generator],
        repeats: int,
        judged: bool,
    ) -> list[PlacedDraw]:
        log_as = [attention.log_attention.expand(repeats, -1) for attention in maps]
        if self.spec.block > 1:
            drawn_blocks = [
                self._draw_blocks(view, log_a.detach(), partial(take, generator=own), samples, judged=judged)
                for view, log_a, own in zip(views, log_as, generators, strict=True)
            ]
            return self._placed(log_as, maps, drawn_blocks)
        stacks = [view.stack for view in views]
        if not judged and repeats == 1 and len(set(stacks)) == 1 and all(view.tissue.sum() > samples for view in views):
            # slides of one size are drawn together: what each draws alone, in the time of one
            many = take(torch.cat(log_as).detach(), samples, order=self._walk(stacks[0]), generator=generators)
            draws = [Draw(*one) for one in zip(many.cells.split(1), many.weights.split(1), strict=True)]
        else:
            draws = [
                take(log_a.detach(), samples, order=self._walk(stack), generator=own)
                for log_a, stack, own in zip(log_as, stacks, generators, strict=True)
            ]
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

    def _placed(self, log_as: list[Tensor], maps: Sequence[AttentionMap], draws: Sequence[Draw]) -> list[PlacedDraw]:
        placed = []
        for log_a, attention, drawn in zip(log_as, maps, draws, strict=True):
            everywhere = torch.arange(log_a.shape[1], device=self.drawing_device).expand(len(log_a), -1)
            own = log_a if attention.shown is None else attention.shown.expand_as(log_a)
            placed.append(PlacedDraw(drawn, log_a, everywhere, attention, entropy(own)))
        return placed

    def evidence(self, drawn: PlacedDraw, features: Tensor) -> Evidence:
        """What the features (B, N, D) of drawn cells, in their order, tell about the read-out's statistics."""
        beside: dict[str, Any] = {"stages": self._stages(drawn), "readout": self.readout}
        with torch.no_grad():
            return weigh(*self._weighed(drawn, features), cells=drawn.cells, **beside)

    def judge(
        self, drawn: PlacedDraw, features: Tensor, *, confidence: float = 0.95, chance: PlacedDraw | None = None
    ) -> Prediction:
        """Prediction from the features (N, D) of drawn cells, in their order.

        Args:
            drawn, features: see above.
            confidence: of its interval.
            chance: the part of the draw that tells how the unread cells may differ; default: all of it. The others were
                not drawn as cells of a slide are, but chosen.
        """
        told = drawn if chance is None else chance
        logits, moved, contrasts = (values[0] for values in self._weighed(drawn, features[None]))
        if chance is not None:
            cells = drawn.cells[0].sort(stable=True)
            moved = moved[cells.indices[torch.searchsorted(cells.values, chance.cells[0])]]
            contrasts = self._contrasts(chance)[0]
        options: dict[str, Any] = {"cells": told.cells[0], "stages": self._stages(told), "confidence": confidence}
        return predict(logits, moved, contrasts, calibration=self.calibration, readout=self.readout, **options)

    def tissue_by_region(self, view: View) -> Tensor:
        """Which cells of each region are tissue, (regions, cells of a region)."""
        return by_region(torch.from_numpy(view.tissue).to(self.drawing_device), self.spec.region_cells).flatten(0, 1)

    @torch.no_grad()
    def _weighed(self, drawn: PlacedDraw, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, C), how they move with each patch (B, N, C), and contrasts times attention (B, H, N)."""
        moved = drawn.moves(features).double()  # parts of a sum are told, and have to add up
        logits = drawn.logits(drawn.say(features).double())
        return logits.mean(1), moved.mean(2), self._contrasts(drawn)

    def _contrasts(self, drawn: PlacedDraw) -> Tensor:
        """A draw's contrasts times attention, (B, H, N)."""
        assert drawn.draw.contrasts is not None, "the draw must be judged"
        attention = drawn.log_attention.double().exp().gather(1, drawn.draw.cells)
        return drawn.draw.contrasts * attention.unsqueeze(1)

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
        return self._walk(Stack(((rows, columns),)))

    def _walk(self, stack: Stack) -> Tensor:
        return walk(stack).to(self.drawing_device)

    def read_drawn(self, views: Sequence[View], drawn: Sequence[PlacedDraw]) -> list[Tensor]:
        """Patches (N, P, P, 3) of single draws, of all slides together."""
        return read_together(
            [(view.patches, one.cells[0]) for view, one in zip(views, drawn, strict=True)], self.device
        )


def _of_each_slide(generator: torch.Generator | Sequence[torch.Generator], slides: int) -> Sequence[torch.Generator]:
    """A generator for each slide: its own, or one that they share."""
    return [generator] * slides if isinstance(generator, torch.Generator) else generator
