"""The model: attention, draw, patch reading, encoding and aggregation, composed once for training and prediction."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import UsageError
from stages.aggregation import Prediction, predict
from stages.attention import build_attention, masked_log_softmax
from stages.features import build_encoder
from stages.sampling import (
    Draw,
    contrasts,
    draw,
    entropy,
    expectation,
    hard_bound,
    hilbert_order,
    replicates,
)

FORMAT = "saccade-1"
FEATURE_SCALE = 10.0
"""The head reads ``FEATURE_SCALE * Phi``: unit features alone would keep its logits, and its gradients, small."""
MAX_REPLICATES = 257
"""Of a systematic draw: enough to tell its variance apart, few enough to store for any budget."""
ENCODER_BLOCK = 256
"""Patches in memory at once at prediction, whatever the budget."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything but the weights that makes a model what it is; stored in its checkpoint.

    Attributes:
        classes: class names in the order of the logits.
        attention_mpp: µm/px of the thumbnail.
        patch_mpp, patch_px: µm/px and side of a patch.
        attention: kind of attention map.
        encoder, dim: patch encoder and feature length.
        scheme, samples, replicates: how a slide is drawn at prediction unless the user says otherwise; replicates are
            for the schemes that do not pair their cells.
    """

    classes: tuple[str, ...]
    attention_mpp: float
    patch_mpp: float
    patch_px: int
    attention: str
    encoder: str
    dim: int
    scheme: str
    samples: int
    replicates: int

    @property
    def cell_px(self) -> int:
        """Thumbnail pixels along a cell's side."""
        return round(self.patch_px * self.patch_mpp / self.attention_mpp)


@dataclass(frozen=True, slots=True)
class View:
    """What the model needs of one slide; pixels beyond the thumbnail come through ``patches`` only.

    Attributes:
        rgb: thumbnail, (H, W, 3) uint8.
        tissue: which cells are tissue, (rows, columns) bool.
        patches: row-major cell indices (N,) -> lazy or real patches (N, P, P, 3) uint8.
    """

    rgb: NDArray[np.uint8]
    tissue: NDArray[np.bool_]
    patches: Callable[[NDArray[np.int64]], Any]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One slide after its draw was read.

    Attributes:
        log_attention: (rows * columns,), -inf off the tissue.
        cells: the M different cells that were read, row-major indices (M,).
        weights: (M,), 0 for what only an earlier, smaller draw used, such that
            ``sum_m weight_m attention_m features_m`` is the slide's embedding.
        features: (M, D).
        prediction: probabilities with intervals.
        missed: hard bound on the embedding's error, ``1 - sum of the attention that was read``.
    """

    log_attention: Tensor
    cells: NDArray[np.int64]
    weights: NDArray[np.float64]
    features: NDArray[np.float32]
    prediction: Prediction
    missed: float


class AttentionSampler(nn.Module):
    """Slide-level logits as an unbiased estimate of the model that reads every patch.

    ``logits = W (10 Phi) + b`` with ``Phi = sum_i a_i f_i`` estimated from a draw (Katharopoulos & Fleuret, 2019).
    """

    def __init__(self, spec: ModelSpec, *, encoder_weights: Path | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.attention = build_attention(spec.attention, cell_px=spec.cell_px)
        self.encoder = build_encoder(spec.encoder, dim=spec.dim, pretrained_path=encoder_weights)
        self.head = nn.Linear(spec.dim, len(spec.classes))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    def attend(self, view: View) -> Tensor:
        """Log attention of the cells, (rows * columns,): sums to one over the tissue, -inf elsewhere."""
        rgb = torch.from_numpy(view.rgb).to(self.device).permute(2, 0, 1) / 255  # (3, H, W)
        tissue = torch.from_numpy(view.tissue).to(self.device)
        return masked_log_softmax(self.attention(rgb), tissue).flatten()

    def forward(
        self,
        views: Sequence[View],
        *,
        samples: int,
        generator: torch.Generator,
        scheme: str | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and attention entropies (B,) in nats of a batch of slides, from one draw each.

        The patches of all slides are read together, by dask on threads, and encoded together.
        """
        attention = [self.attend(view) for view in views]
        draws = [self._draw(a, view, samples, generator, scheme) for a, view in zip(attention, views, strict=True)]
        patches = torch.cat(self._read(views, draws))
        features = self.encoder(augment(patches) if augment else patches)
        parts = features.split([d.cells.shape[1] for d in draws])
        embeddings = [expectation(a[None], f[None], d)[0] for a, f, d in zip(attention, parts, draws, strict=True)]
        return self._logits(torch.stack(embeddings)), torch.cat([entropy(a[None]) for a in attention])

    @torch.no_grad()
    def standardise(self, views: Sequence[View], *, samples: int, generator: torch.Generator) -> None:
        """Set the encoder's centre and spread from one draw of each slide; see `PatchEncoder.standardise`."""
        draws = [self._draw(self.attend(view), view, samples, generator, None) for view in views]
        self.encoder.standardise(torch.cat(self._read(views, draws)))

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
        twice. Each of at most J looks has an interval of confidence ``1 - 0.05 / J``, so that all hold together in 95 %
        of slides, and stopping at any of them is fair (Bonferroni).

        Args:
            view: the slide.
            generator: on the model's device.
            samples: patches to read at most; default: the model's budget, or with a tolerance the whole tissue.
            scheme: how to draw; default: the model's.
            tolerance: see above; None draws once.
        """
        log_attention = self.attend(view)
        tissue = int(view.tissue.sum())
        most = min(tissue, samples or tissue)
        budget = (samples or self.spec.samples) if tolerance is None else min(self.spec.samples, most)
        looks = 1 if tolerance is None else 1 + math.ceil(math.log2(most / budget))
        known: dict[int, Tensor] = {}
        while True:
            drawn = self.plan(log_attention, view, generator=generator, samples=budget, scheme=scheme)
            wanted = drawn.cells[0].tolist()
            new = sorted(set(wanted) - known.keys())
            if new:
                known.update(zip(new, self._encode(view, np.array(new)), strict=True))
            features = torch.stack([known[cell] for cell in wanted])
            prediction = self.judge(log_attention, drawn, features, confidence=1 - 0.05 / looks)
            # all the tissue may be read again in part; less than that is a budget to keep
            next_budget = min(2 * budget, tissue if most == tissue else most - len(known))
            if tolerance is None or prediction.reach <= tolerance or next_budget <= budget:
                break
            budget = next_budget
        cells = torch.tensor(sorted(known), device=log_attention.device)
        weights = torch.zeros(log_attention.numel(), dtype=torch.float64, device=cells.device)
        weights.index_add_(0, drawn.cells[0], drawn.weights[0])
        return Sampled(
            log_attention,
            cells.cpu().numpy(),
            weights[cells].cpu().numpy(),
            torch.stack([known[cell] for cell in sorted(known)]).float().cpu().numpy(),
            prediction,
            float(hard_bound(log_attention[None], Draw(cells[None], torch.ones_like(cells[None])))[0]),
        )

    def plan(
        self,
        log_attention: Tensor,
        view: View,
        *,
        generator: torch.Generator,
        samples: int | None = None,
        scheme: str | None = None,
    ) -> Draw:
        """Draw one slide's cells so that they also tell how sure they are; see `stages.sampling.replicates`."""
        budget, scheme = samples or self.spec.samples, scheme or self.spec.scheme
        return replicates(
            log_attention[None],
            budget,
            # systematic pairs its cells by itself: as many replicates as it can tell apart
            min(1 + budget // 2, MAX_REPLICATES) if scheme == "systematic" else self.spec.replicates,
            scheme=scheme,
            generator=generator,
            order=self._order(view),
        )

    @torch.no_grad()
    def judge(self, log_attention: Tensor, drawn: Draw, features: Tensor, *, confidence: float = 0.95) -> Prediction:
        """Prediction from a plan's features (N, D), those of its cells in their order."""
        logits = self._logits(expectation(log_attention[None], features[None], drawn)[0])
        attention = log_attention.double().exp()[drawn.cells[0]]
        patch_logits = self._logits(features) - self.head.bias
        return predict(logits, patch_logits, contrasts(drawn)[0] * attention, confidence=confidence)

    def _logits(self, embeddings: Tensor) -> Tensor:
        """Slide embeddings (..., D) -> logits (..., C); linear, so that unbiased embeddings give unbiased logits."""
        logits: Tensor = self.head(FEATURE_SCALE * embeddings.to(self.head.weight.dtype))
        return logits

    def _encode(self, view: View, cells: NDArray[np.int64]) -> Tensor:
        """Features (M, D) of the cells' patches, in blocks that bound the encoder's memory."""
        blocks = []
        for part in np.array_split(cells, -(-len(cells) // ENCODER_BLOCK)):
            (patches,) = dask.compute(view.patches(part), scheduler="threads")
            blocks.append(self.encoder(torch.from_numpy(patches).to(self.device)))
        return torch.cat(blocks)

    def _draw(self, log_attention: Tensor, view: View, n: int, generator: torch.Generator, scheme: str | None) -> Draw:
        return draw(
            log_attention.detach()[None],
            n,
            scheme=scheme or self.spec.scheme,
            generator=generator,
            order=self._order(view),
        )

    def _order(self, view: View) -> Tensor:
        return _walk(*view.tissue.shape).to(self.device)

    def _read(self, views: Sequence[View], draws: Sequence[Draw]) -> list[Tensor]:
        lazy = [view.patches(d.cells[0].cpu().numpy()) for view, d in zip(views, draws, strict=True)]
        return [torch.from_numpy(p).to(self.device) for p in dask.compute(*lazy, scheduler="threads")]


@lru_cache(maxsize=32)
def _walk(rows: int, columns: int) -> Tensor:
    return hilbert_order(rows, columns)


def save_model(model: AttentionSampler, path: Path) -> None:
    """Write weights and spec as one safetensors file (the caller makes the write atomic)."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={"format": FORMAT, "spec": json.dumps(asdict(model.spec))})


def load_model(path: Path, *, device: str = "cpu") -> AttentionSampler:
    """Read a checkpoint written by `save_model`; nothing in it is ever executed.

    Args:
        path: the file.
        device: "cpu", "cuda", "cuda:N", or "auto": a GPU where there is one.

    Raises:
        UsageError: missing, truncated, or not one of ours; its encoder needs what is not installed; or no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise UsageError(
                f"{path} is not a {FORMAT} checkpoint: give the model.safetensors that `saccade train` wrote"
            )
        spec = json.loads(metadata["spec"])
        spec["classes"] = tuple(spec["classes"])
        model = AttentionSampler(ModelSpec(**spec))
        model.load_state_dict(safetensors.torch.load_file(path))
    except FileNotFoundError as exc:
        raise UsageError(f"no checkpoint at {path}: give the model.safetensors that `saccade train` wrote") from exc
    except ImportError as exc:
        raise UsageError(f"cannot load the checkpoint {path}: {exc}") from exc
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as exc:
        reason = str(exc).splitlines()[0]
        raise UsageError(f"cannot load the checkpoint {path}: {reason}; it is damaged or of another version") from exc
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as exc:
        raise UsageError(f"cannot compute on {device!r}: {str(exc).splitlines()[0]}; use --device cpu") from exc


def model_digest(path: Path) -> str:
    """SHA-256 of a checkpoint file: part of every result's key."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
