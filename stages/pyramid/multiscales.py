"""What an OME-Zarr image says of itself, whoever wrote it: its axes, units and levels, from metadata alone.

Formats: https://ngff.openmicroscopy.org/ 0.1 to 0.6 (where axes lie in coordinate systems), and the layout of
bioformats2raw, whose root holds series of images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from stages.disk import refusal
from stages.object_store import UNLISTED, children
from stages.passing import UnreadableError
from stages.place import Place, Url, exists, read
from stages.slide.channels import Channel, describe_channel
from stages.slide.facts import SlideError
from stages.slide.units import micrometres

LAYOUT = "bioformats2raw.layout"
METADATA = ("zarr.json", ".zattrs")
"""Where a group has its attributes: of zarr v3 and of v2."""
MOST_SERIES = 64
"""Series that are asked for where a store lists nothing."""
_ARRAY = "one array of an image: name the folder that holds all its levels"
_NOT_READ = "is placed by a transformation of type {!r}; scale, translation, identity and sequences of them are read"


@dataclass(frozen=True, slots=True)
class Dataset:
    """One level of an image, as its metadata has it.

    Attributes:
        path: of its array, in the image's group.
        scale: (y, x) of its pixels, in the axes' units; None where that is not stated.
        translation: (y, x) of its first pixel's centre, likewise.
    """

    path: str
    scale: tuple[float, float] | None
    translation: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Multiscales:
    """An image, as its metadata has it.

    Attributes:
        version: of the format; "" where none is stated.
        axes: what each dimension is: t, c, z, y, x, or the name of another.
        units: of y and x as they are written; None where there is none.
        datasets: its levels, in the order of the metadata.
        channels: those that are described.
    """

    version: str
    axes: tuple[str, ...]
    units: tuple[str | None, str | None]
    datasets: tuple[Dataset, ...]
    channels: tuple[Channel, ...]


def is_slide(folder: Place) -> bool:
    """Whether a search takes a folder for a slide: an image, but no label image, attention map or export of ours.

    One whose metadata is damaged, or may not be read, counts, so that it fails where it is seen.
    """
    try:
        attributes = read_attributes(folder)
    except SlideError as exc:
        shut = isinstance(exc.__cause__, PermissionError)
        return shut or (not _is_array(folder) and any(exists(folder / name) for name in METADATA))
    no_slide = "image-label" in attributes or {"frame", "fingerprint"} & _ours(attributes).keys()
    return not no_slide and ("multiscales" in attributes or LAYOUT in attributes)


def read_attributes(folder: Place) -> dict[str, Any]:
    """What the zarr group at a folder says of itself, with what 0.5 moved into ``ome`` where it was before.

    Raises:
        SlideError: it is no zarr group, or its metadata cannot be read.
    """
    if not isinstance(folder, Url) and _is_array(folder):
        raise SlideError(_ARRAY)
    shut: UnreadableError | None = None
    for name in METADATA:
        try:
            found = json.loads(read(folder / name))
            if name == "zarr.json" and found.get("node_type") == "array":
                raise SlideError(_ARRAY)
            attributes = dict(found.get("attributes") or {} if name == "zarr.json" else found)
            return {**attributes, **attributes.get("ome", {})}
        except FileNotFoundError:
            if name == ".zattrs" and exists(folder / ".zgroup"):
                return {}
        except UnreadableError as exc:
            if exc.passing:
                raise
            shut = shut or exc  # stores refuse access, too, to what is not there
        except OSError as exc:
            assert not isinstance(folder, Url)
            raise SlideError(f"its {name} cannot be read: {refusal(exc, folder / name, writing=False)}") from exc
        except (ValueError, TypeError, AttributeError) as exc:
            raise SlideError(
                f"its {name} is damaged ({exc}): copy the folder again, or delete it and make it anew with "
                "`saccade cache`"
            ) from exc
    if shut is not None:
        raise shut
    if isinstance(folder, Url):
        if exists(folder / ".zarray"):
            raise SlideError(_ARRAY)
        alone = "; a web server lists no folders, so that each image in one is named by its own"
        how = f", or put a pyramid of it there, `saccade cache SLIDE --out {folder.parent}`"
        put = alone if folder.kind in UNLISTED else how
        raise SlideError(
            f"there is no OME-Zarr image (no {' or '.join(METADATA)} below it), and nothing else is read from a store: "
            f"correct the URL, or copy the slide to a disk{put}"
        )
    raise SlideError(
        "a folder, but not a finished pyramid of ours nor an OME-Zarr image: name the slide file itself, "
        "or make a pyramid of it with `saccade cache`"
    )


def _ours(attributes: dict[str, Any]) -> dict[str, Any]:
    """What we wrote into a group: a place into an attention map, a fingerprint into an export for other programs."""
    found = attributes.get("saccade")
    return found if isinstance(found, dict) else {}


def _is_array(folder: Place) -> bool:
    if exists(folder / ".zarray"):
        return True
    try:
        return bool(json.loads(read(folder / "zarr.json"))["node_type"] == "array")
    except (OSError, ValueError, TypeError, KeyError):
        return False


def find_images(folder: Place) -> list[Place]:
    """The folders of the images at a folder: itself, or the series that bioformats2raw wrote there.

    Raises:
        SlideError: it holds none, or something else of OME-Zarr.
    """
    attributes = read_attributes(folder)
    if "image-label" in attributes:
        raise SlideError("a label image, the numbers of objects: name the image that it belongs to")
    if "frame" in _ours(attributes):
        raise SlideError("an attention map that `saccade run` wrote: name the slide that it was made of")
    if "multiscales" in attributes:
        return [folder]
    for key, inside in (("plate", "A/1/0"), ("well", "0")):
        if key in attributes:
            raise SlideError(f"a {key} of many images: name one of them, such as {folder.name}/{inside}")
    if LAYOUT in attributes:
        series = sorted((name for name in _folders(folder) if name.isdecimal()), key=int)
        images = [folder / name for name in series if "multiscales" in read_attributes(folder / name)]
        if images:
            return images
    raise SlideError(
        "a zarr folder that holds no OME-Zarr image, as it says nothing of `multiscales`: "
        "name the slide that it was made of, or copy the folder again where its metadata are missing"
    )


def _folders(folder: Place) -> list[str]:
    """Names of the folders in one; of those that a web server holds, which lists none, the series that come first."""
    if not isinstance(folder, Url):
        return [path.name for path in folder.iterdir()]
    try:
        return [name for name, _ in children(folder.text)]
    except UnreadableError as exc:
        if exc.passing:
            raise
        numbers = map(str, range(MOST_SERIES))
        return list(takewhile(lambda name: any(exists(folder / name / of) for of in METADATA), numbers))


def read_multiscales(folder: Place) -> Multiscales:
    """The first image that a group describes.

    Raises:
        SlideError: the description makes no sense, or places a level in a way that is not read here.
    """
    attributes = read_attributes(folder)
    try:
        return _parsed(attributes, attributes["multiscales"][0])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as exc:
        raise SlideError(f"its OME-Zarr metadata makes no sense ({exc!r}): write it again") from exc


def _parsed(attributes: dict[str, Any], image: dict[str, Any]) -> Multiscales:
    version = str(attributes.get("version") or image.get("version") or "")
    systems = image.get("coordinateSystems")
    described: Sequence[Any] = image.get("axes") or list("tczyx")  # the first versions had no others
    if systems:
        output = image["datasets"][0]["coordinateTransformations"][0].get("output")
        name = output.get("name") if isinstance(output, dict) else output
        described = next((s for s in systems if s["name"] == name), systems[0])["axes"]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in described]
    roles = tuple({"channel": "c", "time": "t"}.get(a.get("type", ""), str(a["name"]).lower()) for a in axes)
    if roles.count("y") != 1 or roles.count("x") != 1:
        raise SlideError(f"its axes are {', '.join(roles)}: an image that can be read has one y and one x")
    y, x = roles.index("y"), roles.index("x")
    # from 0.6 on an image's own transformations lead out of its frame, to other images
    common = [] if systems else image.get("coordinateTransformations") or []
    datasets = []
    for level in image["datasets"]:
        steps, path = level.get("coordinateTransformations") or [], str(level["path"])
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise SlideError(f"its level {path} lies outside of its folder")
        scale, shift = _composed([*steps, *common], len(roles), path)
        stated = (scale[y], scale[x]) if steps else None
        datasets.append(Dataset(path, stated, (shift[y], shift[x])))
    units = tuple(str(axes[i]["unit"]) if axes[i].get("unit") else None for i in (y, x))
    channels = tuple(
        describe_channel(str(channel.get("label") or ""), _tint(channel.get("color")))
        for channel in (attributes.get("omero") or {}).get("channels") or []
    )
    if not datasets:
        raise SlideError("its OME-Zarr metadata names no levels")
    return Multiscales(version, roles, (units[0], units[1]), tuple(datasets), channels)


def _composed(steps: Iterable[dict[str, Any]], dimensions: int, path: str) -> tuple[list[float], list[float]]:
    """Scale and translation of each dimension that steps, one after the other, come to."""
    scale, shift = [1.0] * dimensions, [0.0] * dimensions
    for step in steps:
        kind = step["type"]
        if kind == "identity":
            continue
        if kind == "sequence":
            factors, moves = _composed(step["transformations"], dimensions, path)
        elif kind == "scale":
            factors, moves = [float(value) for value in step["scale"]], [0.0] * dimensions
        elif kind == "translation":
            factors, moves = [1.0] * dimensions, [float(value) for value in step["translation"]]
        else:
            raise SlideError(f"its level {path} {_NOT_READ.format(kind)}")
        if len(factors) != dimensions or len(moves) != dimensions:
            raise SlideError(
                f"its level {path} has a {kind} of {len(factors)} and {len(moves)} values on {dimensions} axes"
            )
        if not all(math.isfinite(value) and value > 0 for value in factors) or not all(map(math.isfinite, moves)):
            raise SlideError(f"its level {path} has a {kind} that no image can have: {step[kind]}")
        scale = [factor * value for factor, value in zip(factors, scale, strict=True)]
        shift = [factor * value + move for factor, value, move in zip(factors, shift, moves, strict=True)]
    return scale, shift


def _tint(colour: Any) -> int | None:
    """0xRRGGBB of a colour as it is written; None where it is none."""
    try:
        return int(str(colour).lstrip("#")[:6], 16)
    except ValueError:
        return None


def pixel_micrometres(units: tuple[str | None, str | None], scale: tuple[float, float]) -> tuple[float, float] | str:
    """µm of pixels (y, x), or why they are not known."""
    found = []
    for unit, value in zip(units, scale, strict=True):
        if unit is None:
            return f"the file gives its pixels a size of {scale[1]:.4g} without a unit"
        length = micrometres(unit)
        if length is None:
            return f"the file measures its pixels in {unit!r}, which is no length that is known here"
        found.append(value * length)
    return found[0], found[1]
