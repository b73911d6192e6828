"""The folds' models as one: calibrated together, and written beside the model that was fitted to all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.folds import is_split
from pipeline.cohort.patients import slides_of
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import ensemble_of, load_model, save_ensemble
from pipeline.model.fold_ensemble import FoldEnsemble
from pipeline.model.header import ENSEMBLE
from pipeline.model.slide_model import SlideModel
from pipeline.output.documents import read_json
from pipeline.train.calibrate import calibrate
from pipeline.train.calibrate_job import calibration_slides
from pipeline.train.fit_job import Say
from pipeline.train.job import Job
from pipeline.train.looks import Looks
from stages.amounts import counted


def check_ensemble(config: Config, slides: Sequence[CohortSlide]) -> None:
    """Refuse, before a slide is read, what could not be put together at the end.

    Raises:
        UsageError: there will be no folds, or models that are not averaged.
    """
    if is_split(slides, config.training.folds):
        raise UsageError(
            "training.ensemble puts the models of folds together, but the slides are split; leave it out, or set "
            "training.folds"
        )
    if config.attention.inner_mpp is not None:
        raise UsageError(
            "training.ensemble: models that look twice (attention.inner_mpp) are not averaged; leave it out"
        )


def put_together(
    jobs: Sequence[Job], models: Sequence[SlideModel], config: Config, out: Path, looks: Looks, *, say: Say
) -> None:
    """Write ``ensemble.json`` of the models of the folds, all but the last of the jobs.

    Its intervals are calibrated on the slides that are read whole for the last job's, of which it uses no label: what
    is drawn for the mean of several models spreads otherwise than what is drawn for any of them.
    """
    path, last = out / ENSEMBLE, models[-1]
    ensemble = FoldEnsemble(models[:-1], appearance=last.appearance, quality=last.quality)
    chosen = calibration_slides(jobs[-1], config, looks)
    read = [slide.slide_id for slide in slides_of(chosen) if slide.slide_id not in looks.excluded]
    on = sorted(looks.fingerprints[name] for name in read)
    files = [job.model for job in jobs[:-1]]
    beside = {"calibrated_on": on, "seed": config.training.seed}
    earlier = read_json(path) or {}
    if ensemble_of(files, out) | beside == {name: earlier.get(name) for name in ("format", "members", *beside)}:
        ensemble.calibration = load_model(path, encoder_weights=config.encoder.weights).calibration
    elif chosen:
        say(f"the models of {counted(len(files), 'fold')} together:")
        views = [lambda slide=slide: looks.seen(slide).view for slide in chosen]
        ensemble.calibration = calibrate(ensemble, views, seed=config.training.seed, say=say)
    save_ensemble(ensemble, path, files=files, beside=beside)
    say(f"ensemble of {counted(len(files), 'fold')}: {path} (`saccade run --ensemble`)")
