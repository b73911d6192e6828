"""A cohort of slides made from real stained tissue: pyramidal TIFF files, labels, patients, splits, lesion outlines.

The tissue comes from `skimage.data.immunohistochemistry()`: brown glands, blue nuclei, pale stroma. Each slide is a
bright field with one to three irregular pieces of tissue, and in the tissue lie suspects: on slides labelled `normal`
all of them decoys, on slides labelled `tumour` some of them lesions. At high resolution the structures of a decoy are
small and crowded (`suspects.DECOY_SCALE`), those of a lesion enlarged and coarse (`suspects.LESION_SCALE`). Nothing
else about a slide depends on its label. There are two kinds:

- ``spots``: three dense, blue blobs, one of them perhaps the lesion. A thumbnail of 8 um a pixel tells *where* to look,
  and only full resolution tells *what* it is.
- ``hidden``: some sixteen spots less than 100 um across, perhaps half of them lesions, that have the mean colours of
  the tissue around them. A thumbnail of 32 um a pixel shows nothing, at 4 um a pixel the spots are dotted, and full
  resolution tells for sure what they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

import numpy as np

from pipeline.demo.painting import render, write_slide
from pipeline.demo.scene import CLASSES, MPP, Kind, Scene, make_scene
from pipeline.errors import UsageError
from pipeline.output.documents import read_json, write_json
from pipeline.output.table import write_table
from pipeline.parent import heed_parent
from stages.disk import new_file

FORMAT = 1
"""Raised whenever the same seed would no longer give the same files."""


def make_cohort(
    out: Path,
    *,
    slides: int = 64,
    seed: int = 0,
    size: int = 4096,
    kind: Kind = "spots",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the slides, the lesion outlines and the cohort table; return the table's path.

    ``out/slides/<name>.tif``, ``out/lesions/<name>.geojson`` for slides labelled `tumour` (level-0 pixels) and
    ``out/cohort.csv`` (slide, patient, label, split). Every patient has two slides of one label and lies in one split;
    labels are balanced in each. ``out/cohort.json`` says what the cohort is made from. Slides that are there already
    are kept: files appear under their name only when whole.

    Args:
        out: a folder for this cohort alone.
        slides: how many; a multiple of 4, at least 16, so that every split holds both labels.
        seed: of everything random.
        size: smallest width and height in level-0 pixels; each is up to 6 % larger, and odd.
        kind: how lesions hide, see the module. Smaller slides have fewer hidden spots: sixteen need about 3000.
        workers: processes that paint slides; 1 paints in this one.
        progress: called with (slides done, slides in all).

    Raises:
        ValueError: the number of slides does not allow balanced splits, or the kind is unknown.
        UsageError: ``out`` holds slides made from something else.
    """
    if slides < 16 or slides % 4:
        raise ValueError(f"slides must be a multiple of 4 and at least 16, so that labels balance; found {slides}")
    if kind not in get_args(Kind):
        raise ValueError(f"expected kind to be one of {', '.join(get_args(Kind))}; found {kind}")
    # the number counts too: who has which label depends on it
    _claim(out, {"format": FORMAT, "seed": seed, "size": size, "slides": slides, "kind": kind})
    labels, splits = _assign(slides // 2, seed)
    jobs = [(out, seed, i, labels[i // 2], size, kind) for i in range(slides)]
    missing = [job for job in jobs if not _slide_path(out, job[2]).exists()]
    done = slides - len(missing)
    report = progress or (lambda done, total: None)
    report(done, slides)
    if workers == 1:
        for job in missing:
            _make_slide(*job)
            done += 1
            report(done, slides)
    elif missing:
        # spawn: forking a process that has threads (torch, dask) can deadlock
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=heed_parent) as pool:
            try:
                for future in as_completed([pool.submit(_make_slide, *job) for job in missing]):
                    future.result()
                    done += 1
                    report(done, slides)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # who interrupts waits for the slides in hand, not for all
                raise
    table = out / "cohort.csv"
    rows = [
        {
            "slide": _slide_path(out, i).relative_to(out).as_posix(),
            "patient": f"patient-{i // 2:03d}",
            "label": labels[i // 2],
            "split": splits[i // 2],
        }
        for i in range(slides)
    ]
    write_table(table, rows)
    return table


def lesion_geojson(scene: Scene) -> dict[str, object]:
    """The lesions as a QuPath feature collection in level-0 pixels."""
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [lesion.outline().round(1).tolist()]},
                "properties": {
                    "objectType": "annotation",
                    "name": "lesion",
                    "classification": {"name": "Tumor", "color": [200, 0, 0]},
                    "measurements": {"area_um2": round(lesion.area * MPP**2, 1)},
                },
            }
            for lesion in scene.lesions
        ],
    }


def _claim(out: Path, recipe: Mapping[str, int | str]) -> None:
    """Make the folders and note what the slides will be made from, before the first of them is there."""
    note = out / "cohort.json"
    found = read_json(note)
    if found is not None:
        found = {"kind": "spots", **found}  # as were all cohorts that do not say
    if found != recipe and (note.exists() or any((out / "slides").glob("slide-*.tif"))):
        there = f"one made with {_in_words(found)}" if found else f"slides without a readable {note.name}"
        raise UsageError(
            f"expected a cohort made with {_in_words(recipe)}, found {there} in {out}; "
            "choose another folder or remove this one"
        )
    for folder in ("slides", "lesions"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    if found is None:
        write_json(note, recipe)


def _in_words(recipe: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in recipe.items())


def _assign(patients: int, seed: int) -> tuple[list[str], list[str]]:
    """Label and split of every patient: both labels in equal numbers, 1/4 of each to test, about 1/8 to val."""
    rng = np.random.default_rng((seed, 2**32))
    half = patients // 2
    test, val = half // 4, max(1, half // 8)
    split = ["test"] * test + ["val"] * val + ["train"] * (half - test - val)
    pairs = [(label, s) for label in CLASSES for s in split]
    order = rng.permutation(patients)
    return [pairs[k][0] for k in order], [pairs[k][1] for k in order]


def _slide_path(out: Path, index: int) -> Path:
    return out / "slides" / f"slide-{index:03d}.tif"


def _make_slide(out: Path, seed: int, index: int, label: str, size: int, kind: Kind) -> None:
    """Write one slide and its outlines; the slide last, since its presence says that both are there."""
    scene = make_scene(seed, index, label=label, size=size, kind=kind)
    if scene.lesions:
        with new_file(out / "lesions" / f"{scene.name}.geojson") as temporary:
            temporary.write_text(json.dumps(lesion_geojson(scene)), encoding="utf-8")
    with new_file(_slide_path(out, index)) as temporary:
        write_slide(temporary, render(scene))
