"""What a slide is, in words: the facts behind `saccade info`."""

from __future__ import annotations

from os import PathLike
from typing import Any

from pipeline.errors import UsageError, of_file
from stages.amounts import size
from stages.bags.bag_slide import BagSlide
from stages.geometry import Box, Mpp
from stages.place import Place, place
from stages.pyramid.open import ZarrSlide, open_pyramid
from stages.slide.facts import SlideError
from stages.slide.jpeg_parts import is_installed
from stages.slide.picture import VENDORS
from stages.slide.protocol import Slide


def describe(path: str | PathLike[str] | Place, *, mpp: float | None = None, strict: bool = False) -> dict[str, Any]:
    """The slide's facts as plain JSON values; sizes in pixels, resolutions in µm/px.

    Raises:
        UsageError: it cannot be opened; or, if ``strict``, something else in it contradicts its resolution.
    """
    where = place(path)
    try:
        slide = open_pyramid(where, mpp=mpp)
        if strict:
            slide.facts.refuse_doubt()
    except SlideError as exc:
        raise UsageError(of_file(where, exc)) from exc
    facts = slide.facts
    true = facts.mpp
    bag = isinstance(slide, BagSlide)
    levels = [
        {
            "width": level.width,
            "height": level.height,
            "downsample": [level.scale_x, level.scale_y],
            "mpp": [true.x * level.scale_x, true.y * level.scale_y] if true else None,
            "tile": list(tile),
            "direct_tiles": slide.direct(index),
            "jpeg_parts": is_installed() and bool((tiles := slide.tiles(index)) and tiles.prefix),
        }
        for index, (level, tile) in enumerate(zip(facts.levels, facts.tile_sizes, strict=True))
        if not bag
    ]
    return {
        "path": str(where),
        "vendor": facts.vendor,
        "file_bytes": facts.file_bytes,
        "mpp": [true.x, true.y] if true else None,
        "mpp_source": facts.mpp_source,
        "objective_power": facts.objective_power,
        "bounds": [facts.bounds.x, facts.bounds.y, facts.bounds.width, facts.bounds.height],
        "levels": levels,
        **({"bag": _tiles(slide)} if isinstance(slide, BagSlide) else {}),
        "associated": list(facts.associated),
        "fingerprint": facts.fingerprint,
        "warnings": _warnings(slide),
    }


def _tiles(slide: BagSlide) -> dict[str, Any]:
    """What a bag holds."""
    return {
        "tiles": len(slide.corners),
        "dim": slide.dim,
        "encoder": slide.encoder,
        "patch_px": slide.patch_px,
        "patch_mpp": slide.patch_mpp if slide.facts.mpp else None,
        "side_level0": list(slide.side),
        "pitch_level0": [slide.cells.scale_x, slide.cells.scale_y],
        "off_grid": slide.off_grid,
    }


def _warnings(slide: Slide) -> list[str]:
    """What will bite later, found by looking and by reading a little of every level."""
    facts = slide.facts
    if isinstance(slide, BagSlide):
        return [*([facts.mpp_problem] if facts.mpp_problem else []), *facts.doubts]
    found = [*([facts.mpp_problem] if facts.mpp_problem else []), *facts.doubts, *slow_or_partial(slide)]
    for index, level in enumerate(facts.levels):
        x, y = level.width // 2, level.height // 2
        try:
            slide.read_level(index, Box(x, y, min(64, level.width - x), min(64, level.height - y)))
        except SlideError as exc:
            found.append(str(exc))
    return found


def slow_or_partial(slide: Slide) -> list[str]:
    """What about the encoding of an opened slide makes reading it slow, or leaves some of it out; a line each."""
    facts, found = slide.facts, []
    if len(facts.levels) == 1 and facts.levels[0].width * facts.levels[0].height > 2**26:
        found.append(
            "no pyramid: every thumbnail must read the whole slide; `saccade cache --profile portable` adds the levels"
        )
    width, height = max(facts.tile_sizes, key=lambda tile: tile[0] * tile[1])
    if width * height > 2**22:
        found.append(
            f"tiles of {width} x {height} px, each of which is decoded whole for whatever is wanted of it: slow; "
            "`saccade cache --profile portable` makes a pyramid with smaller ones"
        )
    if isinstance(slide, ZarrSlide) and slide.kept == "tissue":
        found.append("of its finest levels only tissue and its surroundings are kept; the rest reads as background")
    return found


def render_text(facts: dict[str, Any]) -> str:
    """`describe`'s facts for a person."""
    mpp = facts["mpp"]
    resolution = f"{mpp[0]:.4g} x {mpp[1]:.4g} µm/px ({facts['mpp_source']})" if mpp else "unknown"
    x, y, width, height = facts["bounds"]
    lines = [
        facts["path"],
        f"  vendor      {facts['vendor']}, {size(facts['file_bytes'])}",
        f"  resolution  {resolution}"
        + (f", objective {facts['objective_power']}x" if facts["objective_power"] else ""),
        f"  bounds      {width} x {height} px at ({x}, {y})"
        + (f", {width * mpp[0] / 1000:.2f} x {height * mpp[1] / 1000:.2f} mm" if mpp else ""),
    ]
    if "bag" in facts:
        return "\n".join([*lines, *_tiles_in_words(facts["bag"]), *_warned(facts)])
    turned = facts["vendor"] in VENDORS.values()  # else tifffile reads the tiles as they are
    for index, level in enumerate(facts["levels"]):
        ours = level["direct_tiles"] or facts["vendor"].startswith("ome-zarr")
        how = "own tiles" if ours else "turned upright" if turned else "through OpenSlide"
        lines.append(
            f"  level {index:<5} {level['width']} x {level['height']} px"
            + (f", {Mpp(*level['mpp'])} µm/px" if level["mpp"] else "")
            + f", downsample {Mpp(*level['downsample'])}, tiles {level['tile'][0]} x {level['tile'][1]} ({how})"
        )
    lines.append(f"  also in it  {', '.join(facts['associated']) or 'no label, macro or thumbnail image'}")
    return "\n".join([*lines, *_warned(facts)])


def _warned(facts: dict[str, Any]) -> list[str]:
    return [f"  warning     {warning}" for warning in facts["warnings"]]


def _tiles_in_words(bag: dict[str, Any]) -> list[str]:
    side, pitch = (" x ".join(f"{value:g}" for value in bag[name]) for name in ("side_level0", "pitch_level0"))
    at = f"{bag['patch_px']} px" + (f" at {bag['patch_mpp']:.4g} µm/px" if bag["patch_mpp"] else "")
    off = f", {bag['off_grid']} of them off it" if bag["off_grid"] else ""
    return [
        f"  a bag       features and no pixels: length {bag['dim']}, by {bag['encoder'] or 'what it does not say'}",
        f"  tiles       {bag['tiles']} of {at} ({side} level-0 px), on a grid of {pitch} level-0 px{off}",
    ]
