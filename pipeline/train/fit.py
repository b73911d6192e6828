"""The training loop: plain stochastic gradients through one draw a slide and step, run by Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.device import Precision, check_precision, find_device
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import View
from pipeline.train.checkpoints import last_whole
from pipeline.train.curve import Curve, Keep
from pipeline.train.first_guess import first_guess, first_guess_of_all
from pipeline.train.journal import Journal
from pipeline.train.share import ALONE, Share
from pipeline.train.slides import LeaveOut, LeaveOutMembers, TrainingSlides
from pipeline.train.steps import Fitting
from pipeline.train.warm_up import warm_up as warm_attention
from pipeline.train.watch import OnDisk, Watch, validate
from stages.augmentation import Augmentation
from stages.prediction.readout import ClassReadout, Readout, RiskReadout
from stages.torchvision import admit_torchvision

with warnings.catch_warnings():  # other people's deprecations, at import
    warnings.simplefilter("ignore")
    admit_torchvision()
    import lightning

STANDARDISE_SLIDES = 16
"""Slides whose drawn patches set the scale of the features before training."""


def fit(
    model: SlideModel,
    view: Callable[[int], View],
    targets: Tensor,
    *,
    checkpoint: Path,
    samples: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    attention_rate: float,
    warm_up: int,
    weight_decay: float,
    entropy_weight: float,
    gradient_clip: float,
    seed: int,
    device: str,
    accumulate: int = 1,
    precision: Precision = 32,
    read_ahead: int = 0,
    say: Callable[[str], None],
    class_weights: Literal["none", "balanced"] = "none",
    keep: Keep = "best",
    patience: int | None = None,
    turn: bool = True,
    stain: float = 0.0,
    shift: float = 0.0,
    scale: float = 1.0,
    focus: float = 0.0,
    noise: float = 0.0,
    dropout: float = 0.2,
    bags: Tensor | None = None,
    leave_out: LeaveOut | None = None,
    lost: Mapping[int, str] | None = None,
    members: LeaveOutMembers | None = None,
    names: Sequence[str] | None = None,
    validation: tuple[TrainingSlides, Tensor] | None = None,
    curve: Path | None = None,
    events: Path | None = None,
    share: Share = ALONE,
) -> Curve:
    """Fit ``model`` in place on slides with ``targets`` as its read-out has them; ``view(i)`` gives slide ``i``.

    Loss of a batch: ``readout.nll(logits, targets) - entropy_weight * mean attention entropy``, and the squared error
    of the control variate where the model has one; with balanced ``class_weights`` the cross-entropy of a slide whose
    class ``n_c`` of ``n`` slides have counts ``n / (C n_c)`` times; AdamW with one cosine cycle. Goes on from
    the last whole one of the two files at and beside ``checkpoint`` (`pipeline.train.checkpoints`), and leaves them
    there: they are the caller's to remove once the model is saved.

    What learns end to end meets patches varied by ``turn``, ``stain``, ``shift``, ``scale`` and ``focus``
    (`stages.augmentation.Augmentation`); on a frozen encoder, features with ``noise``, a share of their spread, and
    members that do without a share ``dropout`` of the directions in each step.

    The gradients of ``accumulate`` batches make one step, in which all of their slides count alike; an encoder that
    learns computes in ``precision``.

    With ``read_ahead`` patches are drawn so many steps before they are used and read meanwhile (`ReadAhead`); where the
    encoder learns, and attention is of one level.

    Each of a model's M members has a loss of its own, in which a slide counts ``bags`` (slides, M) times, by default
    once. A model on a frozen encoder goes without patches for the first `COARSE_SHARE` of the epochs, while it does not
    know yet where to look.

    A slide that cannot be read is left out from then on and ``leave_out`` told of its index and why; what was learnt
    from it stays. The other slides keep their places in the order and their steps. Those of ``lost`` are never tried.
    Of patients, ``members`` leaves out single slides. A fit that goes on leaves out what it had left out.

    With ``validation`` slides and their classes, which are not fitted to, ``keep`` and ``patience`` are as `Curve` has
    them, which is returned and told in ``curve`` and ``events`` (`Journal`); without, the last epoch is kept.

    Several processes fit it together where each calls this with its ``share`` and otherwise the same: batches are as
    large, and what is learnt is the same but for rounding. The first one begins, and writes.

    Raises:
        DivergedError: loss, gradient or weights are no numbers any more or beyond all bounds; it names the batch's
            slides by ``names``. The checkpoint is the last good epoch's, and a fit with a lower rate goes on from it.
    """
    chosen = share.device(find_device(device))
    check_precision(precision, chosen)
    slides = TrainingSlides(len(targets), view, leave_out, lost, members)
    weights = torch.ones(len(targets), model.spec.members) if bags is None else bags
    model.to(chosen)
    resumed = last_whole(checkpoint, say) if share.first else None
    if share.first and resumed is None:
        slides.phase = "the warm-up"
        model.readout.fit(targets)
        if isinstance(model, EvidenceModel):
            first_guess(model, slides, targets, weights, seed=seed, say=say)
        elif isinstance(model, ExhaustiveModel):
            first_guess_of_all(model, slides, targets, weights, seed=seed, say=say)
        elif isinstance(model, AttentionSampler):
            warm_attention(model, slides, passes=warm_up, seed=seed, say=say)
            _standardise(model, slides, samples=samples, seed=seed)
    if class_weights == "balanced":
        weights = weights * _slide_weights(targets)[:, None]
    module = Fitting(
        model,
        slides,
        targets,
        weights,
        names=names or [f"slide {i}" for i in range(len(targets))],
        checkpoint=checkpoint,
        samples=samples,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        attention_rate=attention_rate,
        weight_decay=weight_decay,
        entropy_weight=entropy_weight,
        seed=seed,
        augmentation=Augmentation(turn=turn, stain=stain, shift=shift, scale=scale, focus=focus),
        noise=noise,
        dropout=dropout,
        epochs=epochs,
        read_ahead=read_ahead,
        share=share,
        held_out=None if validation is None else validation[0],
    )
    course = Curve("last" if validation is None else keep, None if validation is None else patience)
    course.base = _base_rate(model.readout, targets, weights)

    def judged() -> tuple[Tensor, float | None]:
        assert validation is not None
        held_out, wanted = validation
        held_out.phase = f"the validation of epoch {module.current_epoch + 1}"
        return validate(model, held_out, wanted, samples=module.samples, seed=seed, share=share)

    journal = Journal(curve, events=events, say=say)
    watch = Watch(course, checkpoint, journal=journal, validate=judged if validation else None, say=say)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), share.joined(chosen):
        warnings.simplefilter("ignore")  # Lightning's advice on loaders and loggers that are not used here
        resumed, left_out = share.gather((resumed, slides.told))[0]
        slides.restore(left_out)
        share.align(model)
        alone: dict[str, Any] = {"devices": 1 if chosen.index is None else [chosen.index]}
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator=chosen.type,
            gradient_clip_val=gradient_clip,
            accumulate_grad_batches=accumulate,
            precision=precision,
            callbacks=[watch],
            plugins=[OnDisk()],
            enable_checkpointing=False,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
            **alone | share.trainer,
        )
        try:
            trainer.fit(module, ckpt_path=resumed, weights_only=True)
        except SystemExit as ended:
            if not isinstance(ended.__context__, KeyboardInterrupt):
                raise
            # Lightning makes of Ctrl-C an exit with 1, which is that of slides that were left out
            raise KeyboardInterrupt from None
        finally:
            module.close()
    model.to(chosen)  # Lightning leaves it on the CPU
    journal.end(course)
    if watch.weights is not None:
        model.load_state_dict(watch.weights)
    if course.overfitting is not None:
        less = "augmentation.dropout or noise" if model.spec.frozen else "augmentation.stain, shift, scale and focus"
        say(f"warning: {course.overfitting}: try more {less}, fewer training.epochs, or more slides")
    if course.kept < len(course.rows):
        say(f"kept the weights of epoch {course.kept}: the validation loss rose after it by more than its noise")
    return course


def _base_rate(readout: Readout, targets: Tensor, weights: Tensor) -> float | None:
    """The loss in nats of one who knows how frequent the targets (N, ...) are, by how much slides count (N, M); None
    where a slide's loss depends on those that it is told with."""
    if isinstance(readout, RiskReadout):
        return None
    often = weights.sum(1)
    if isinstance(readout, ClassReadout):
        shares = torch.bincount(targets, often, minlength=readout.outputs)
        shares = shares / shares.sum()
        return float(-torch.xlogy(shares, shares).sum())
    return readout.base(targets)


def _standardise(model: AttentionSampler, slides: TrainingSlides, *, samples: int, seed: int) -> None:
    order = torch.randperm(slides.count, generator=torch.Generator().manual_seed(seed)).tolist()
    some = [i for i in order if i not in slides.lost][:STANDARDISE_SLIDES]

    def act(kept: list[int], views: list[View]) -> None:
        model.standardise(views, samples=samples, generator=torch.Generator(model.drawing_device).manual_seed(seed))

    slides.attempt(some, act)


def _slide_weights(labels: Tensor) -> Tensor:
    """A weight for each slide (N,), with which all classes that there are weigh alike and the mean is 1."""
    _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    weights: Tensor = len(labels) / (len(counts) * counts[classes].float())
    return weights
