"""The model: attention, draw, patch reading, encoding and aggregation, composed once for training and prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.model.values import Glance, ModelSpec, Outcome, Plan, Sampled, View
from stages.attention import ThumbnailAttention, build_attention, masked_log_softmax
from stages.encoder.build import build_encoder
from stages.prediction.intervals import Calibration, Evidence, weigh
from stages.prediction.predict import Prediction, predict
from stages.sampling.designs import Draw, nest
from stages.sampling.draw import draw, draw_judged
from stages.sampling.estimate import entropy, expectation, hard_bound
from stages.sampling.schemes import SCHEMES
from stages.sampling.walk import hilbert_order

FEATURE_SCALE = 10.0
"""The head reads ``FEATURE_SCALE * Phi``: unit features alone would keep its logits, and its gradients, small."""
ENCODER_BLOCK = 256
"""Patches in memory at once at prediction, whatever the budget."""


class AttentionSampler(nn.Module):
    """Slide-level logits as an unbiased estimate of the model that reads every patch.

    ``logits = W (10 Phi) + b`` with ``Phi = sum_i a_i f_i`` estimated from a draw (Katharopoulos & Fleuret, 2019). With
    two levels ``a_{ri} = A_r b_{i|r}``: A from the thumbnail, b from a second look that is taken in drawn regions only.
    """

    def __init__(
        self, spec: ModelSpec, *, encoder_weights: Path | None = None, calibration: Calibration | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.calibration = calibration
        side = spec.cell_px * (spec.region_cells if spec.inner_mpp else 1)
        self.attention = build_attention(spec.attention, cell_px=side)
        self.inner = ThumbnailAttention(cell_px=spec.inner_cell_px) if spec.inner_mpp else None
        self.encoder = build_encoder(spec.encoder, dim=spec.dim, pretrained_path=encoder_weights)
        self.head = nn.Linear(spec.dim, len(spec.classes))
        self.control = nn.Linear(self.attention.channels, spec.dim) if spec.control else None  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    def glance(self, view: View) -> Glance:
        """What the thumbnail tells: attention that sums to one over the tissue, and the control variate."""
        tissue = torch.from_numpy(view.tissue).to(self.device)
        if self.inner is not None:
            tissue = self._by_region(tissue).any(2)
        rgb = self.image(view.rgb)
        if self.control is None:
            return Glance(masked_log_softmax(self.attention(rgb), tissue).flatten(), None)
        seen = self.attention.features(rgb)  # type: ignore[operator]
        log_attention = masked_log_softmax(self.attention.logits(seen), tissue).flatten()  # type: ignore[operator]
        # detached: foretelling features must not bend where the model looks
        return Glance(log_attention, self.control(seen.detach().flatten(1).T))

    def forward(
        self,
        views: Sequence[View],
        *,
        samples: int,
        generator: torch.Generator,
        scheme: str | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Outcome:
        """One draw of each slide of a batch.

        The patches of all slides are read together, by dask on threads, and encoded together.
        """
        glances = [self.glance(view) for view in views]
        plans = self.plan(views, glances, samples=samples, generator=generator, scheme=scheme, judged=False)
        patches = torch.cat(self._read_planned(views, plans))
        features = self.encoder(augment(patches) if augment else patches)
        parts = [part[None] for part in features.split([plan.cells.shape[1] for plan in plans])]
        error = features.new_zeros(())
        if self.control is not None:
            told = torch.cat([_told(plan)[0] for plan in plans])
            error = (features.detach() - told).square().sum(1).mean()
        return Outcome(
            self._logits(torch.cat([_embed(plan, part) for plan, part in zip(plans, parts, strict=True)])),
            torch.cat([plan.entropy for plan in plans]),
            error,
        )

    @torch.no_grad()
    def standardise(self, views: Sequence[View], *, samples: int, generator: torch.Generator) -> None:
        """Set the encoder's centre and spread from one draw of each slide; see `PatchEncoder.standardise`."""
        glances = [self.glance(view) for view in views]
        plans = self.plan(views, glances, samples=samples, generator=generator, judged=False)
        self.encoder.standardise(torch.cat(self._read_planned(views, plans)))

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
        no class's interval reaches farther than ``tolerance`` from its probability. Patches are kept: none is read
        twice, and no region is looked into twice. Each of at most J looks has an interval of confidence
        ``1 - 0.05 / J``, so that all hold together in 95 % of slides, and stopping at any of them is fair (Bonferroni).

        Args:
            view: the slide.
            generator: on the model's device.
            samples: patches to read at most; default: the model's budget, or with a tolerance the whole tissue.
            scheme: how to draw; default: the model's.
            tolerance: see above; None draws once.
        """
        glance = self.glance(view)
        tissue = int(view.tissue.sum())
        most = min(tissue, samples or tissue)
        budget = (samples or self.spec.samples) if tolerance is None else min(self.spec.samples, most)
        looks = 1 if tolerance is None else 1 + math.ceil(math.log2(most / budget))
        known: dict[int, Tensor] = {}
        opened: dict[int, Tensor] = {}
        while True:
            (plan,) = self.plan([view], [glance], samples=budget, generator=generator, scheme=scheme, opened=[opened])
            wanted = plan.cells[0].tolist()
            new = sorted(set(wanted) - known.keys())
            if new:
                known.update(zip(new, self.encode(view, np.array(new)), strict=True))
            features = torch.stack([known[cell] for cell in wanted])
            prediction = self.judge(plan, features, confidence=1 - 0.05 / looks)
            # all the tissue may be read again in part; less than that is a budget to keep
            next_budget = min(2 * budget, tissue if most == tissue else most - len(known))
            if tolerance is None or prediction.reach <= tolerance or next_budget <= budget:
                break
            budget = next_budget
        log_attention = self._spread(view, glance, opened)
        cells = torch.tensor(sorted(known), device=log_attention.device)
        weights = torch.zeros(log_attention.numel(), dtype=torch.float64, device=cells.device)
        weights.index_add_(0, plan.cells[0], plan.draw.weights[0])
        return Sampled(
            log_attention,
            cells.cpu().numpy(),
            weights[cells].cpu().numpy(),
            torch.stack([known[cell] for cell in sorted(known)]).float().cpu().numpy(),
            np.array(sorted(opened), np.int64),
            prediction,
            float(hard_bound(log_attention[None], Draw(cells[None], torch.ones_like(cells[None])))[0]),
        )

    def plan(
        self,
        views: Sequence[View],
        glances: Sequence[Glance],
        *,
        samples: int,
        generator: torch.Generator,
        scheme: str | None = None,
        judged: bool = True,
        repeats: int = 1,
        opened: Sequence[dict[int, Tensor]] | None = None,
    ) -> list[Plan]:
        """Draw at most ``samples`` cells of each slide, ``repeats`` times; `judged`, such that they also tell how sure
        they are.

        With two levels the drawn regions of all slides are looked into together; what ``opened`` holds for a slide
        (region -> log attention inside it) is used and added to, so that no region is looked into twice.
        """
        take = draw_judged if judged else draw
        options: dict[str, Any] = {"scheme": scheme or self.spec.scheme, "generator": generator}
        if self.inner is None:
            plans = []
            for view, glance in zip(views, glances, strict=True):
                log_a = glance.log_attention.expand(repeats, -1)
                drawn = take(log_a.detach(), samples, order=self._order(*view.tissue.shape), **options)
                places = torch.arange(log_a.shape[1], device=self.device).expand(repeats, -1)
                control = None if glance.control is None else glance.control.expand(repeats, -1, -1)
                plans.append(Plan(drawn, log_a, places, control, entropy(log_a)))
            return plans
        outers, shares = [], []
        for view, glance in zip(views, glances, strict=True):
            rows, columns = (n // self.spec.region_cells for n in view.tissue.shape)
            regions, share = self._shares(view, glance, samples)
            log_a = glance.log_attention.detach().expand(repeats, -1)
            outers.append(take(log_a, regions, order=self._order(rows, columns), **options))
            shares.append(share)
        insides = self._look_inside(views, [outer.cells.flatten() for outer in outers], opened)
        order = self._order(self.spec.region_cells, self.spec.region_cells)
        plans = []
        for view, glance, outer, share, inside in zip(views, glances, outers, shares, insides, strict=True):
            inner = take(inside.detach(), share, order=order, **options)  # of (B R) regions
            log_outer = glance.log_attention[outer.cells]  # (B, R)
            within = (outer.weights * log_outer.exp() * entropy(inside).view_as(log_outer)).sum(1)
            plans.append(
                Plan(
                    nest(outer, inner, inside.shape[1], repeats=SCHEMES[options["scheme"]].repeats),
                    (log_outer.flatten().unsqueeze(1) + inside).view(repeats, -1),
                    self._places(view)[outer.cells].flatten(1),
                    None,
                    entropy(glance.log_attention[None]) + within,
                )
            )
        return plans

    def evidence(self, plan: Plan, features: Tensor) -> Evidence:
        """What the features (B, N, D) of a plan's cells, in their order, tell about the log-odds."""
        return weigh(*self._weighed(plan, features))

    def judge(self, plan: Plan, features: Tensor, *, confidence: float = 0.95) -> Prediction:
        """Prediction from the features (N, D) of a plan's cells, in their order."""
        parts = (values[0] for values in self._weighed(plan, features[None]))
        return predict(*parts, calibration=self.calibration, confidence=confidence)

    def tissue_by_region(self, view: View) -> Tensor:
        """Which cells of each region are tissue, (regions, cells of a region)."""
        return self._by_region(torch.from_numpy(view.tissue).to(self.device)).flatten(0, 1)

    @torch.no_grad()
    def encode(self, view: View, cells: NDArray[np.int64]) -> Tensor:
        """Features (M, D) of the cells' patches, in blocks that bound the encoder's memory."""
        blocks = []
        for part in np.array_split(cells, -(-len(cells) // ENCODER_BLOCK)):
            (patches,) = dask.compute(view.patches(part), scheduler="threads")
            blocks.append(self.encoder(torch.from_numpy(patches).to(self.device)))
        return torch.cat(blocks)

    @torch.no_grad()
    def _weighed(self, plan: Plan, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, C), what each patch adds to them (B, N, C), and contrasts times attention (B, H, N)."""
        assert plan.draw.contrasts is not None, "the plan must be judged"
        attention = plan.log_attention.double().exp().gather(1, plan.draw.cells)
        left = features if plan.control is None else features - _told(plan)
        patch_logits = self._logits(left) - self.head.bias
        return self._logits(_embed(plan, features)), patch_logits, plan.draw.contrasts * attention.unsqueeze(1)

    def _logits(self, embeddings: Tensor) -> Tensor:
        """Slide embeddings (..., D) -> logits (..., C); linear, so that unbiased embeddings give unbiased logits."""
        logits: Tensor = self.head(FEATURE_SCALE * embeddings.to(self.head.weight.dtype))
        return logits

    def _shares(self, view: View, glance: Glance, samples: int) -> tuple[int, int]:
        """How many regions to open, and how many patches to read in each; a slide of few cells is taken whole."""
        regions = int((glance.log_attention > -torch.inf).sum())
        if samples >= int(view.tissue.sum()):
            return regions, self.spec.region_cells**2
        regions = min(regions, max(2, samples // self.spec.region_samples))
        return regions, samples // regions

    def _look_inside(
        self, views: Sequence[View], regions: Sequence[Tensor], opened: Sequence[dict[int, Tensor]] | None
    ) -> list[Tensor]:
        """Log attention inside regions, (R, cells of a region) for each slide; -inf off the tissue."""
        assert self.inner is not None
        known = opened or [{} for _ in views]
        new = [sorted(set(r.tolist()) - k.keys()) for r, k in zip(regions, known, strict=True)]
        asked = [(v.regions, torch.tensor(n)) for v, n in zip(views, new, strict=True) if n]
        images = iter(self._read(asked) if asked else [])
        for view, found, cells in zip(views, known, new, strict=True):
            if cells:
                logits = self.inner(self.image(next(images)))
                tissue = self.tissue_by_region(view)[cells]
                inside = [masked_log_softmax(one.flatten(), mask) for one, mask in zip(logits, tissue, strict=True)]
                found.update(zip(cells, inside, strict=True))
        return [torch.stack([k[cell] for cell in r.tolist()]) for r, k in zip(regions, known, strict=True)]

    def _spread(self, view: View, glance: Glance, opened: dict[int, Tensor]) -> Tensor:
        """Log attention of all cells as far as it is known, (rows * columns,)."""
        if self.inner is None:
            return glance.log_attention
        tissue = self.tissue_by_region(view)
        inside = torch.where(tissue, -tissue.sum(1, keepdim=True).double().log(), -torch.inf)
        for region, found in opened.items():
            inside[region] = found.double()
        joint = torch.where(tissue, glance.log_attention.double().unsqueeze(1) + inside, -torch.inf)
        out = joint.new_empty(joint.numel())
        out[self._places(view).flatten()] = joint.flatten()
        return out

    def _by_region(self, cells: Tensor) -> Tensor:
        """Cells (rows, columns) -> (region rows, region columns, cells of a region)."""
        side = self.spec.region_cells
        rows, columns = (n // side for n in cells.shape)
        return cells.view(rows, side, columns, side).transpose(1, 2).flatten(2)

    def _places(self, view: View) -> Tensor:
        """Row-major indices of the cells of each region, (regions, cells of a region)."""
        cells = torch.arange(view.tissue.size, device=self.device).view(view.tissue.shape)
        return self._by_region(cells).flatten(0, 1)

    def image(self, rgb: NDArray[np.uint8] | Tensor) -> Tensor:
        """(..., H, W, 3) uint8 -> (..., 3, H, W) in 0 to 1."""
        return torch.as_tensor(rgb).to(self.device).movedim(-1, -3) / 255

    def _order(self, rows: int, columns: int) -> Tensor:
        return _walk(rows, columns).to(self.device)

    def _read_planned(self, views: Sequence[View], plans: Sequence[Plan]) -> list[Tensor]:
        """Patches (N, P, P, 3) of single plans, of all slides together."""
        return self._read([(view.patches, plan.cells[0]) for view, plan in zip(views, plans, strict=True)])

    def _read(self, asked: Sequence[tuple[Callable[[NDArray[np.int64]], Any] | None, Tensor]]) -> list[Tensor]:
        lazy = [read(cells.cpu().numpy()) for read, cells in asked if read is not None]
        return [torch.from_numpy(p).to(self.device) for p in dask.compute(*lazy, scheduler="threads")]


@lru_cache(maxsize=32)
def _walk(rows: int, columns: int) -> Tensor:
    return hilbert_order(rows, columns)


def _embed(plan: Plan, features: Tensor) -> Tensor:
    """Estimates of ``Phi``, (B, D), from features (B, N, D)."""
    return expectation(plan.log_attention, features, plan.draw, control=plan.control)


def _told(plan: Plan) -> Tensor:
    """What the thumbnail foretold for a plan's cells, (B, N, D)."""
    assert plan.control is not None
    return plan.control.gather(1, plan.draw.cells.unsqueeze(-1).expand(-1, -1, plan.control.shape[2]))
