"""A model, and what it says of one slide, or of one patient."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.arguments import AnyPath, check_reading, check_refer, given_prior
from pipeline.commands.slides import open_slide
from pipeline.errors import UsageError, computing, reason_of

if TYPE_CHECKING:
    from pipeline.model.slide_model import SlideModel
    from pipeline.predict import SlidePrediction
    from pipeline.predict_patient import PatientPrediction
    from stages.slide.protocol import Slide


@computing()
def load_model(path: AnyPath, *, device: str = "auto", encoder_weights: AnyPath | None = None) -> SlideModel:
    """Load a model that `train` wrote: a torch module in evaluation mode. Nothing in the file is ever executed.

    Args:
        path: the checkpoint, `model.safetensors`, or the folder that `train` wrote it to.
        device: "auto" ("cuda" where there is a GPU for it, else "cpu"), "cpu", "cuda", "cuda:N" or "mps".
        encoder_weights: of its frozen encoder, where they are not those that the encoder's name stands for.

    Raises:
        UsageError: missing, damaged, not one of ours; or no such device.

    Examples:
        >>> import saccade
        >>> model = saccade.load_model("model.safetensors")
        >>> model.spec.classes, model.spec.patch_mpp, model.spec.samples
        (('normal', 'tumour'), 0.5, 16)
    """
    from pipeline.model import checkpoint
    from pipeline.model.build import keep_features

    weights = None if encoder_weights is None else Path(encoder_weights)
    return keep_features(checkpoint.load_model(Path(path), device=device, encoder_weights=weights))


@computing()
def predict(
    slide: Slide | AnyPath,
    model: SlideModel | AnyPath,
    *,
    samples: int | None = None,
    tolerance: float | None = None,
    decide: float | None = None,
    risk: float | None = None,
    positive: str | None = None,
    scheme: str | None = None,
    seed: int = 0,
    mpp: float | None = None,
    prior: AnyPath | None = None,
    prior_mpp: float | None = None,
    prior_channel: int | None = None,
    refer: float | None = None,
    by_class: bool = False,
) -> SlidePrediction:
    """Predict one slide, with an interval for every class; what `run` finds for it.

    Args:
        slide: an opened slide, or its path.
        model: a loaded model, or its path.
        samples: patches to read, with a tolerance or a decision at most; default: the model's own number.
        tolerance: read on until no interval reaches farther than this from its probability, such as 0.02.
        decide: read on only until it is settled whether the probability of the ``positive`` class, or the number that
            is predicted, had every patch been read, lies above or below this, such as 0.5; where ``samples`` end first,
            it is undecided.
        risk: with ``decide``, how often a slide may be decided for the wrong side; default: 0.01.
        positive: with ``decide``, the class, the label, the grade that is to be reached, or one of the numbers, such as
            "survival_5"; default: of two classes the second, or the only number.
        scheme: how the patches are drawn, "systematic", "gumbel" or "iid"; default: the model's.
        seed: of the draws; the same seed reads the same patches of the same slide.
        mpp: µm per level-0 pixel of a slide given by its path.
        prior: see `run`; also one map, of this slide.
        prior_mpp: see `run`.
        prior_channel: see `run`.
        refer: a stated error, such as 0.1, at which the slide's class is called or the slide referred, of a model that
            `conformalize` calibrated: ``label_set`` of the prediction.
        by_class: state it of the slides of each class, not of all.

    Raises:
        SlideError: the slide cannot be read, or its resolution is unknown or too coarse for the model.
        UsageError: the model cannot be used, or the arguments do not fit each other.
        ValueError: there is no tissue on the slide, or so few samples tell no interval.

    Examples:
        >>> import saccade
        >>> model = saccade.load_model("model.safetensors")
        >>> prediction = saccade.predict("slides/even.tif", model, samples=24)
        >>> sorted(prediction.probabilities), prediction.patches_read
        (['normal', 'tumour'], 24)
        >>> saccade.predict("slides/even.tif", model, samples=24).probabilities == prediction.probabilities
        True
    """
    check_reading(samples, tolerance, decide, risk, positive)
    check_refer(refer, by_class)
    from pipeline.asked import check_budget, check_prior, decision_of
    from pipeline.cohort.files import folder_name, slide_stem
    from pipeline.predict import predict_slide

    if isinstance(slide, str | PathLike):
        slide = open_slide(slide, mpp=mpp)
    elif mpp is not None:
        raise UsageError("mpp is for a slide given by its path: give it to open_slide")
    model = _ready(model)
    check_budget(model.spec, samples=samples, scheme=scheme)
    given = given_prior(prior, prior_mpp, prior_channel)
    if given is not None:
        check_prior(model.spec, given)
        given = given.of(folder_name(slide_stem(slide.facts.path)))
    chosen = decision_of(model.spec, decide, risk, positive, samples=samples)
    how: dict[str, Any] = {"samples": samples, "tolerance": tolerance, "decide": chosen, "scheme": scheme}
    rule = None
    if refer is not None:
        from pipeline.refer.referral import referral

        reads_on = tolerance is not None or chosen is not None
        rule = referral(
            model, refer, by_class=by_class, samples=samples, reads_on=reads_on, scheme=scheme, prior=given is not None
        )
    return predict_slide(slide, model, **how, seed=seed, prior=given, refer=rule)


@computing()
def predict_patient(
    slides: Iterable[Slide | AnyPath],
    model: SlideModel | AnyPath,
    *,
    samples: int | None = None,
    tolerance: float | None = None,
    decide: float | None = None,
    risk: float | None = None,
    positive: str | None = None,
    scheme: str | None = None,
    seed: int = 0,
    mpp: float | None = None,
    prior: AnyPath | None = None,
    prior_mpp: float | None = None,
    prior_channel: int | None = None,
) -> PatientPrediction:
    """Predict one patient of all slides together with a model of patients (`cohort.unit: patient`); what `run` finds.

    Patches are drawn over all of them, however they are ordered.

    Args:
        slides: opened slides, or their paths, one at least, of different names.
        model: a loaded model, or its path.
        samples: patches to read of all slides together, with a tolerance or a decision at most; default: the model's
            own number.
        tolerance: see `predict`.
        decide: see `predict`.
        risk: see `predict`.
        positive: see `predict`.
        scheme: see `predict`.
        seed: see `predict`.
        mpp: µm per level-0 pixel of slides given by their paths.
        prior: see `run`.
        prior_mpp: see `run`.
        prior_channel: see `run`.

    Raises:
        SlideError: one of the slides cannot be read, which it names; `run` leaves it out and goes on.
        UsageError: the model cannot be used or is one of slides, there are no slides or two of one name, or the
            arguments do not fit each other.
        ValueError: so few samples tell no interval.

    Examples:
        >>> import saccade
        >>> how = ["cohort.unit=patient", "training.epochs=1"]
        >>> model = saccade.train("config.yaml", out="patients", overrides=how).model
        >>> prediction = saccade.predict_patient(["s4.tif", "s5.tif"], model, samples=8)
        >>> sorted(prediction.probabilities), list(prediction.slides)
        (['a', 'b'], ['s4', 's5'])
        >>> sum(slide.patches_read for slide in prediction.slides.values())
        8
    """
    check_reading(samples, tolerance, decide, risk, positive)
    from pipeline.asked import check_budget, check_prior, decision_of
    from pipeline.cohort.files import folder_name, slide_stem
    from pipeline.model.joint import spared
    from pipeline.predict_patient import predict_patient
    from stages.slide.facts import SlideError

    opened: dict[str, Slide] = {}
    for one in slides:
        slide = open_slide(one, mpp=mpp) if isinstance(one, str | PathLike) else one
        name = folder_name(slide_stem(slide.facts.path))
        if name in opened:
            raise UsageError(f"two slides are called {name!r}: give each once, and each a name of its own")
        opened[name] = slide
    if not opened:
        raise UsageError("a patient has one slide at least, and none is given")
    model = _ready(model)
    if model.spec.unit != "patient":
        raise UsageError(
            "predict_patient is for models of patients, and this one is of slides: predict each slide, or train one "
            "with cohort.unit: patient"
        )
    check_budget(model.spec, samples=samples, scheme=scheme)
    given = given_prior(prior, prior_mpp, prior_channel)
    if given is not None:
        check_prior(model.spec, given)

    def refuse(name: str, reason: str) -> None:
        raise SlideError(f"{name}: {reason}")

    try:
        return predict_patient(
            opened,
            model,
            lose=refuse,
            samples=samples,
            tolerance=tolerance,
            decide=decision_of(model.spec, decide, risk, positive, samples=samples),
            scheme=scheme,
            seed=seed,
            priors=None if given is None else {name: given.of(name) for name in opened},
        )
    except SlideError as exc:
        spared(exc, reason_of(exc))  # which names the slide, by refusing it
        raise


def _ready(model: SlideModel | AnyPath) -> SlideModel:
    if isinstance(model, str | PathLike):
        return load_model(model)
    if model.training:
        raise UsageError("the model is in training mode, where it predicts differently: call model.eval() first")
    return model
