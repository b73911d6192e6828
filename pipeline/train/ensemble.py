"""The folds' models as one: calibrated together, and written beside the model that was fitted to all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import ENSEMBLE, ensemble_of, load_model, save_ensemble
from pipeline.model.fold_ensemble import FoldEnsemble
from pipeline.model.slide_model import SlideModel
from pipeline.output.documents import read_json
from pipeline.train.calibrate import calibrate
from pipeline.train.fit_job import Say, calibration_slides
from pipeline.train.job import Job
from pipeline.train.looks import Looks
from stages.amounts import counted


def put_together(
    jobs: Sequence[Job], models: Sequence[SlideModel], config: Config, out: Path, looks: Looks, *, say: Say
) -> None:
    """Write ``ensemble.json`` of the models of the folds, all but the last of the jobs; without folds there is none.

    Its intervals are calibrated on the slides that are read whole for the last job's, of which it uses no label: what
    is drawn for the mean of several models spreads otherwise than what is drawn for any of them.
    """
    path = out / ENSEMBLE
    if len(jobs) < 3:
        say("warning: training.ensemble puts the models of folds together, and there are none: it writes nothing")
        path.unlink(missing_ok=True)
        return
    last = models[-1]
    try:
        ensemble = FoldEnsemble(models[:-1], appearance=last.appearance, quality=last.quality)
    except ValueError as exc:
        raise UsageError(f"training.ensemble: {exc}; leave it out") from exc
    chosen = calibration_slides(jobs[-1], config, looks)
    on = sorted(looks.fingerprints[slide.slide_id] for slide in chosen)
    files = [job.model for job in jobs[:-1]]
    beside = {"calibrated_on": on, "seed": config.training.seed}
    earlier = read_json(path) or {}
    if ensemble_of(files, out) | beside == {name: earlier.get(name) for name in ("format", "members", *beside)}:
        ensemble.calibration = load_model(path, encoder_weights=config.encoder.weights).calibration
    elif chosen:
        say(f"the models of {counted(len(files), 'fold')} together:")
        views = [lambda slide=slide: looks(slide).view for slide in chosen]
        ensemble.calibration = calibrate(ensemble, views, seed=config.training.seed, say=say)
    save_ensemble(ensemble, path, files=files, beside=beside)
    say(f"ensemble of {counted(len(files), 'fold')}: {path} (`saccade run --ensemble`)")
