"""Whole-slide histopathology by attention sampling: look where it matters, predict with a stated confidence.

In a notebook, each line shows what it made:

    >>> import saccade
    >>> slide = saccade.open_slide("slides/even.tif")
    >>> model = saccade.load_model("model.safetensors")
    >>> prediction = saccade.predict(slide, model)
    >>> figure = prediction.plot()

`run`, `train`, `bench`, `cache`, `check` and `export` are the commands of the same names. A name is imported when it is
first used, so `import saccade` costs nothing; `dir(saccade)` lists them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.bench.bench import BenchSummary as BenchSummary
    from pipeline.cache import CacheSummary as CacheSummary
    from pipeline.check.values import CheckSummary as CheckSummary
    from pipeline.cohort.cohort import Cohort as Cohort
    from pipeline.commands.benchmark import bench as bench
    from pipeline.commands.calibration import conformalize as conformalize
    from pipeline.commands.checking import check as check
    from pipeline.commands.distillation import DistilSummary as DistilSummary
    from pipeline.commands.distillation import distil as distil
    from pipeline.commands.exports import export as export
    from pipeline.commands.models import load_model as load_model
    from pipeline.commands.models import predict as predict
    from pipeline.commands.models import predict_patient as predict_patient
    from pipeline.commands.pyramids import cache as cache
    from pipeline.commands.runs import run as run
    from pipeline.commands.slides import open_slide as open_slide
    from pipeline.commands.slides import read_cohort as read_cohort
    from pipeline.commands.training import TrainSummary as TrainSummary
    from pipeline.commands.training import train as train
    from pipeline.conformalize import ConformalSummary as ConformalSummary
    from pipeline.errors import UsageError as UsageError
    from pipeline.export.export import ExportSummary as ExportSummary
    from pipeline.predict import SlidePrediction as SlidePrediction
    from pipeline.predict_patient import PatientPrediction as PatientPrediction
    from pipeline.run.books import RunSummary as RunSummary
    from stages.pyramid.store import SlideStore as SlideStore
    from stages.slide.facts import SlideError as SlideError
    from stages.slide.protocol import Slide as Slide

    __version__: str

_PLACES = {
    "pipeline.bench.bench": ("BenchSummary",),
    "pipeline.cache": ("CacheSummary",),
    "pipeline.check.values": ("CheckSummary",),
    "pipeline.cohort.cohort": ("Cohort",),
    "pipeline.commands.benchmark": ("bench",),
    "pipeline.commands.calibration": ("conformalize",),
    "pipeline.commands.checking": ("check",),
    "pipeline.commands.distillation": ("DistilSummary", "distil"),
    "pipeline.commands.exports": ("export",),
    "pipeline.commands.models": ("load_model", "predict", "predict_patient"),
    "pipeline.commands.pyramids": ("cache",),
    "pipeline.commands.runs": ("run",),
    "pipeline.commands.slides": ("open_slide", "read_cohort"),
    "pipeline.commands.training": ("TrainSummary", "train"),
    "pipeline.conformalize": ("ConformalSummary",),
    "pipeline.errors": ("UsageError",),
    "pipeline.export.export": ("ExportSummary",),
    "pipeline.predict": ("SlidePrediction",),
    "pipeline.predict_patient": ("PatientPrediction",),
    "pipeline.run.books": ("RunSummary",),
    "stages.pyramid.store": ("SlideStore",),
    "stages.slide.facts": ("SlideError",),
    "stages.slide.protocol": ("Slide",),
}
_PLACE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    *("open_slide", "load_model", "predict", "predict_patient", "run", "train", "distil", "conformalize", "bench"),
    *("cache", "check", "export", "read_cohort"),
    *(
        "Slide",
        "SlideStore",
        "SlidePrediction",
        "PatientPrediction",
        "Cohort",
        "RunSummary",
        "TrainSummary",
        "DistilSummary",
    ),
    *("ConformalSummary", "BenchSummary", "CacheSummary", "CheckSummary", "ExportSummary"),
    *("SlideError", "UsageError", "__version__"),
]


if not TYPE_CHECKING:  # type checkers would take it for a promise that every name exists

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            from saccade.moved import nearest

            near = nearest(name, __all__)
            hint = f"did you mean {near!r}?" if near else "dir(saccade) lists what it has"
            raise AttributeError(f"saccade has no {name!r}; {hint}", name=name)
        from importlib import import_module

        from saccade.shadows import refuse_shadows

        refuse_shadows()
        if name == "__version__":
            value = import_module("pipeline.version").saccade_version()
        else:
            value = getattr(import_module(_PLACE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
