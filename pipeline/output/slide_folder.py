"""Everything that lands on disk, each thing written atomically and the commit mark last.

Nothing that another program wrote is ever replaced.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import UsageError
from stages.disk import ForeignFolderError, flush, new_file, new_folder

if TYPE_CHECKING:
    from stages.geometry import Raster
    from stages.slide.files import SlideFacts

MARK = ".saccade"
"""File that marks a folder as an output of ours."""
COMMIT = "prediction.json"
"""A slide's commit mark: there, and whole, only when everything else of that slide is."""

_OUTPUT_NAMES = (
    *("run.json", "predictions.csv", "report.html", "slides"),
    *("metrics.json", "model.safetensors", "splits.csv"),
)
_PACKAGES = (
    *("saccade", "torch", "openslide-python", "openslide-bin", "zarr", "dask", "distributed"),
    *("numpy", "scikit-image", "tifffile", "imagecodecs", "h5py", "timm"),
)


def prepare_output(out: Path) -> None:
    """Make ``out`` an output folder of ours, by really writing to it.

    Raises:
        UsageError: it cannot be written, or holds results of another program.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not is_output(out):
            foreign = [name for name in _OUTPUT_NAMES if os.path.lexists(out / name)]
            if foreign:
                raise UsageError(
                    f"{out} already has a {foreign[0]!r} that saccade did not write; choose an --out folder of its own"
                )
        write_json(out / MARK, {"program": "saccade"})
    except OSError as exc:
        raise UsageError(f"cannot write to {out}: {exc.strerror}; choose another --out or make it writable") from exc


def is_output(folder: Path) -> bool:
    """Whether `prepare_output` made this folder."""
    return os.path.isfile(folder / MARK)


def slide_key(fingerprint: str, parts: Mapping[str, Any]) -> str:
    """SHA-256 over a slide's content and everything that its results depend on: equal keys, equal results.

    Raises:
        ValueError: a part is NaN or infinite, which equals nothing.
        TypeError: a part has no JSON form.
    """
    text = json.dumps([fingerprint, parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON (UTF-8): numpy values as plain numbers, paths as text, NaN and infinity as null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with new_file(path) as temporary:
        # backslashreplace: a file name that is not Unicode becomes the JSON escape of its surrogates
        temporary.write_bytes(f"{text}\n".encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is no file, or one that is cut off, damaged or not an object."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write a CSV (UTF-8, one header): numbers to six digits, None, NaN and missing values as empty cells.

    Args:
        path: the file.
        rows: values by column.
        columns: what to write, in this order; default: every key that occurs, in order of appearance.
    """
    if columns is None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        new_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        careful = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # the other leaves "\r" unquoted
        for cells in [list(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]:
            (careful if any("\r" in cell for cell in cells) else writer).writerow(cells)


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """The columns of predictions.csv.

    Raises:
        UsageError: two columns would share a name, as with classes "x" and "x_low".
    """
    columns = ["slide_id", "path", "status", "error", "predicted"]
    columns += [f"prob_{name}{end}" for name in classes for end in ("", "_low", "_high")]
    columns += ["patches_read", "cells", "fraction_read", "bytes_read", "seconds", "key"]
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise UsageError(f"the classes {', '.join(classes)} would give two columns {twice!r}; rename a class")
    return columns


def write_predictions(path: Path, rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> None:
    """Write predictions.csv, one row a slide; a failed slide's numbers stay empty and its error is one line."""
    lines = [{**row, "error": " ".join(str(row.get("error") or "").split())} for row in rows]
    write_table(path, lines, prediction_columns(classes))


def begin_slide(folder: Path) -> None:
    """Make a slide's folder and take back its commit mark, before any artefact in it is replaced.

    With the mark still there, a crash between two artefacts would leave a mixture that counts as done by its old key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COMMIT).unlink(missing_ok=True)
    flush(folder)


def write_commit(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a slide's commit mark, after everything else of that slide.

    Raises:
        ValueError: the record lacks its "key".
    """
    if not isinstance(record.get("key"), str):
        raise ValueError(f"a commit record needs a 'key', found {sorted(record)}")
    write_json(folder / COMMIT, record)


def read_commit(folder: Path) -> dict[str, Any] | None:
    """A slide's commit record, or None where there is none that is whole."""
    record = read_json(folder / COMMIT)
    return record if record is not None and isinstance(record.get("key"), str) else None


def write_run(path: Path, run: Mapping[str, Any]) -> None:
    """Write run.json: ``run`` and which versions on which machine made it."""
    write_json(path, {"program": "saccade", **run, "versions": versions(), "machine": machine()})


def versions() -> dict[str, str | None]:
    """Versions of this package and of what its results depend on; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """What this process runs on."""
    return {"name": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()}


def write_thumbnail(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) RGB as a PNG."""
    from PIL import Image

    with new_file(path) as temporary:
        Image.fromarray(rgb).save(temporary)


def write_attention_zarr(path: Path, attention: NDArray[np.floating], raster: Raster) -> None:
    """Write an attention map (rows, columns) as a zarr v3 array of float32.

    Its attribute ``saccade`` places cell (column u, row v) on the slide's level-0 frame by its edges:
    ``x_level0 = x + scale_x * u``, ``y_level0 = y + scale_y * v``, in level-0 pixels.

    Raises:
        ValueError: the map's shape is not the raster's.
        UsageError: something is at ``path`` that we did not write.
    """
    import zarr
    from zarr.storage import LocalStore  # zarr takes text for an address and cuts it at "#" and "?"

    if attention.shape != raster.shape:
        raise ValueError(f"attention of shape {attention.shape} on a raster of shape {raster.shape}")
    place: dict[str, Any] = {key: getattr(raster, key) for key in ("x", "y", "scale_x", "scale_y")}
    try:
        with new_folder(path, ours=lambda folder: _attention_place(folder) is not None) as temporary:
            array = zarr.create_array(
                store=LocalStore(temporary),
                shape=attention.shape,
                chunks=tuple(min(side, 1024) for side in attention.shape),
                dtype="float32",
                dimension_names=("y", "x"),
                attributes={"saccade": {"frame": "level0", **place}},
                zarr_format=3,
            )
            array[:] = attention.astype(np.float32)
    except ForeignFolderError as exc:
        raise UsageError(f"{exc}; move it or choose another --out") from exc


def read_attention_zarr(path: Path) -> tuple[NDArray[np.float32], Raster]:
    """The attention map (rows, columns) that `write_attention_zarr` wrote, and its raster.

    Raises:
        UsageError: there is none.
    """
    import zarr
    from zarr.storage import LocalStore

    from stages.geometry import Raster

    place = _attention_place(path)
    if place is None:
        raise UsageError(f"no attention map at {path}; expected one that `saccade run` wrote: run the slide again")
    attention = np.asarray(zarr.open_array(LocalStore(path, read_only=True), mode="r")[:], np.float32)
    rows, columns = attention.shape
    return attention, Raster(place["x"], place["y"], place["scale_x"], place["scale_y"], columns, rows)


def write_samples_h5(
    path: Path,
    *,
    slide_id: str,
    facts: SlideFacts,
    patch_px: int,
    patch_mpp: float,
    boxes_level0: ArrayLike,
    cells: ArrayLike,
    features: ArrayLike,
    attention: ArrayLike,
    weights: ArrayLike,
) -> None:
    """Write the patches that were read as a bag that CLAM, TRIDENT and torchmil open, with our weights beside.

    Datasets: ``coords`` (N, 2) int64, level-0 top-left corners; ``features`` (N, D) float32; ``attention`` (N,), of
    each patch's cell; ``weight`` (N,), such that ``sum_m weight_m attention_m features_m`` is the slide's embedding;
    ``cell`` (N,), row-major index into attention.zarr. Attributes of ``coords`` are CLAM's and TRIDENT's, and
    ``mpp_level0`` (x, y) and ``target_mpp`` in µm/px. Magnifications are ``10 / mpp``, unrounded, so that a reader who
    divides them gets the true scale. ``patch_level`` is the level whose scale is nearest to the patches'.

    Args:
        path: the file.
        slide_id: the slide's name.
        facts: what the slide is; its resolution must be known.
        patch_px: side of a patch in its own pixels.
        patch_mpp: µm per pixel of a patch.
        boxes_level0: (x, y, width, height) of each patch in level-0 pixels, (N, 4).
        cells, features, attention, weights: as above.

    Raises:
        ValueError: the lengths differ.
    """
    import h5py

    boxes = np.asarray(boxes_level0, np.float64).reshape(-1, 4)
    columns: dict[str, NDArray[Any]] = {
        "coords": np.rint(boxes[:, :2]).astype(np.int64),
        "features": np.asarray(features, np.float32),
        "attention": np.asarray(attention, np.float32),
        "weight": np.asarray(weights, np.float64),
        "cell": np.asarray(cells, np.int64),
    }
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"one row for each patch in every dataset, found {lengths}")
    mpp = facts.require_mpp()
    scale = patch_mpp / mpp.x
    level = min(range(len(facts.levels)), key=lambda i: abs(math.log(facts.levels[i].scale_x / scale)))
    full, chosen = facts.levels[0], facts.levels[level]
    attributes = {
        "name": slide_id,
        "patch_size": patch_px,
        "patch_size_level0": round(patch_px * scale),
        "patch_level": level,
        "downsample": (chosen.scale_x, chosen.scale_y),
        "level_dim": (chosen.width, chosen.height),
        "downsampled_level_dim": (chosen.width, chosen.height),
        "level0_width": full.width,
        "level0_height": full.height,
        "level0_magnification": 10 / mpp.x,
        "target_magnification": 10 / patch_mpp,
        "mpp_level0": (mpp.x, mpp.y),
        "target_mpp": patch_mpp,
        "overlap": 0,
        "save_path": str(path.parent).encode("utf-8", "backslashreplace").decode(),
        "savetodir": str(path.parent).encode("utf-8", "backslashreplace").decode(),
    }
    with new_file(path) as temporary, h5py.File(temporary, "w") as file:
        for name, column in columns.items():
            chunk = (max(1, min(1024, len(column))), *column.shape[1:])
            file.create_dataset(name, data=column, maxshape=(None, *column.shape[1:]), chunks=chunk)
        file["coords"].attrs.update(attributes)


def _attention_place(path: Path) -> dict[str, float] | None:
    try:
        place = json.loads((path / "zarr.json").read_bytes())["attributes"]["saccade"]
        return {key: float(place[key]) for key in ("x", "y", "scale_x", "scale_y")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _cell(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)
