"""The record that makes a folder a pyramid of ours: what it holds, and of which slide."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from itertools import product
from typing import Any, Literal

from stages.geometry import Box, Mpp, Raster
from stages.place import Place, Url, file_sizes, read, reading, true_name, write
from stages.pyramid.jpeg_metadata import jpeg_metadata, read_jpeg_metadata
from stages.pyramid.layout import LevelLayout, array_metadata, ome_metadata
from stages.slide.facts import SlideError, SlideFacts
from stages.slide.revision import Revision

FORMAT = 2
"""Version of the layout and of the record that we keep in the group's metadata."""
TISSUE = 2
"""Version of how tissue is found, raised when a slide's tissue may lie where it was not kept before."""
EARLIER_TISSUE = (
    "of the finest levels this pyramid holds what an earlier version took for tissue, and white elsewhere: "
    "`saccade cache` makes it anew"
)
REMEDY = "delete it and run `saccade cache` again"

Profile = Literal["native", "portable"]
Kept = Literal["all", "tissue"]


@dataclass(frozen=True, slots=True)
class Record:
    """What a pyramid of ours says of itself.

    Attributes:
        facts: of the pyramid; their revision is that of the slide that it was made of.
        layouts: of its levels.
        profile: how it was made.
        kept: whether the finest levels hold all of the slide or the surroundings of its tissue.
        shard_bytes: size of each shard's file, level by level, in the order of `LevelLayout.shards`.
        origin: `origin_of` the slide; None where an earlier version made it.
    """

    facts: SlideFacts
    layouts: tuple[LevelLayout, ...]
    profile: Profile
    kept: Kept
    shard_bytes: tuple[tuple[int, ...], ...]
    origin: str | None = None


def origin_of(path: Place) -> str:
    """What tells slides of one name apart by where they lie: a hash, as pyramids travel and paths may name people."""
    return hashlib.blake2b(true_name(path).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def refuse_another(folder: Place, origin: str | None, slide: Place) -> None:
    """Raise a `SlideError` where what is in a folder, of other content than a slide's, was not made of what was there
    before, but of a slide that lies elsewhere."""
    if origin is not None and origin != origin_of(slide):
        raise SlideError(
            f"{folder} was made of another slide, which lies or lay elsewhere: choose another --out, rename this one, "
            "or delete that pyramid"
        )


def pyramid_facts(facts: SlideFacts, folder: Place, layouts: Sequence[LevelLayout]) -> SlideFacts:
    """The facts of a slide's pyramid: the slide's own, but for what lies on disk."""
    tiles = tuple((min(x.chunk[1], x.size[1]), min(x.chunk[0], x.size[0])) for x in layouts)
    return replace(facts, path=folder, tile_sizes=tiles, associated=())


def write_record(record: Record, source: SlideFacts) -> None:
    """Write the group's metadata: what makes the folder a pyramid, so the last thing in it.

    Args:
        record: what to say of the pyramid.
        source: the slide that it was made of.
    """
    kept = asdict(record.facts)
    for field in fields(SlideFacts):  # earlier versions know nothing of what came later, and need not where it is usual
        if field.default is not MISSING and kept[field.name] == field.default:
            del kept[field.name]
    for name in ("path", "file_bytes", "associated", "revision"):
        kept.pop(name, None)
    levels = [
        {
            "chunk": layout.chunk,
            "shard": layout.shard,
            "jpeg": None if layout.jpeg is None else jpeg_metadata(layout.jpeg),
            "shard_bytes": sizes,
        }
        for layout, sizes in zip(record.layouts, record.shard_bytes, strict=True)
    ]
    ours = {
        "format": FORMAT,
        "profile": record.profile,
        "kept": record.kept,
        "tissue": TISSUE,
        "facts": kept,
        "source": {
            "name": source.path.name,
            "bytes": source.file_bytes,
            "origin": origin_of(source.path),
            "revision": source.revision and asdict(source.revision),
        },
        "levels": levels,
    }
    attributes = {"ome": ome_metadata(record.facts, source.path.name), "saccade": ours}
    write_json(record.facts.path / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})


def write_json(path: Place, content: dict[str, Any]) -> None:
    """Write a file of metadata in one step, and have the disk hold it."""
    write(path, json.dumps(content, allow_nan=False).encode())


def has_record(folder: Place) -> bool:
    """Whether `write_record` made this folder a pyramid, of whatever format; it may be damaged since."""
    try:
        return "format" in json.loads(read(folder / "zarr.json"))["attributes"]["saccade"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_record(folder: Place) -> Record:
    """What `write_record` recorded at a folder, whose arrays' metadata and shards are looked at one by one.

    Raises:
        SlideError: the record makes no sense, or the metadata or a shard is not as it was written.
    """
    try:
        with reading(folder / "zarr.json"):
            content = read(folder / "zarr.json")
        ours = json.loads(content)["attributes"]["saccade"]
        if ours["format"] != FORMAT:
            raise SlideError(f"this pyramid has format {ours['format']}, this version reads {FORMAT}: {REMEDY}")
        record = _parsed(folder, ours)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as exc:
        raise SlideError(f"this pyramid's metadata is damaged ({exc!r}): {REMEDY}") from exc
    for layout in record.layouts:
        try:
            with reading(layout.folder / "zarr.json"):
                found = json.loads(read(layout.folder / "zarr.json"))
        except (OSError, ValueError) as exc:
            raise SlideError(f"this pyramid's level {layout.folder.name} cannot be opened ({exc}): {REMEDY}") from exc
        if found != array_metadata(layout, record.facts.background):
            raise SlideError(f"this pyramid's level {layout.folder.name} is not as it was written: {REMEDY}")
    for layout, sizes in zip(record.layouts, record.shard_bytes, strict=True):
        _check_shards(layout, sizes)
    return record


def _check_shards(layout: LevelLayout, sizes: Sequence[int]) -> None:
    there = file_sizes(layout.folder / "c" / "0") if isinstance(layout.folder, Url) else {}
    if there is None:  # its store lists nothing: every chunk has a checksum
        return
    shards = f"{layout.folder}/c/0"  # large pyramids have thousands: a `Path` for each would take longer than looking
    for (row, column), size in zip(product(*map(range, layout.grid)), sizes, strict=True):
        if isinstance(layout.folder, Url):
            found = there.get(f"{row}/{column}", 0)
        else:
            try:
                found = os.stat(f"{shards}/{row}/{column}").st_size
            except OSError:
                found = 0
        if found != size:
            name = f"{layout.folder.name}/c/0/{row}/{column}"
            raise SlideError(f"this pyramid is damaged: {name} has {found} bytes, expected {size}; {REMEDY}")


def _parsed(folder: Place, ours: dict[str, Any]) -> Record:
    kept = ours["facts"]
    sizes = tuple(tuple(int(size) for size in level["shard_bytes"]) for level in ours["levels"])
    stored = {
        **kept,
        "path": folder,
        "levels": tuple(Raster(**level) for level in kept["levels"]),
        "tile_sizes": tuple((int(width), int(height)) for width, height in kept["tile_sizes"]),
        "mpp": None if kept["mpp"] is None else Mpp(**kept["mpp"]),
        "bounds": Box(**kept["bounds"]),
        "background": tuple(kept["background"]),
        "origin": tuple(kept.get("origin", (kept["bounds"]["x"], kept["bounds"]["y"]))),
        "warnings": tuple(kept.get("warnings", ())),
        "revision": Revision.recorded(ours.get("source", {}).get("revision")),
        "associated": (),
        "file_bytes": sum(map(sum, sizes)),
    }
    if ours["kept"] == "tissue" and ours.get("tissue", 1) < TISSUE:
        stored["warnings"] += (EARLIER_TISSUE,)
    facts = SlideFacts(**stored)
    layouts = []
    for i, (raster, level) in enumerate(zip(facts.levels, ours["levels"], strict=True)):
        jpeg = None if level["jpeg"] is None else read_jpeg_metadata(level["jpeg"])
        chunk, shard = ((int(rows), int(columns)) for rows, columns in (level["chunk"], level["shard"]))
        layouts.append(LevelLayout(folder / str(i), raster.shape, chunk, shard, jpeg))
        if len(sizes[i]) != layouts[i].grid[0] * layouts[i].grid[1]:
            raise ValueError(f"{len(sizes[i])} shards of level {i}")
    if not layouts or ours["kept"] not in ("all", "tissue"):
        raise ValueError("no levels" if not layouts else ours["kept"])
    return Record(facts, tuple(layouts), ours["profile"], ours["kept"], sizes, ours.get("source", {}).get("origin"))
