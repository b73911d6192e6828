"""What a trained model depends on: all of it, and nothing else; and in words what of it has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.model.spec import ModelSpec
from pipeline.output.documents import plain
from stages.slide.facts import SlideError, SlideFacts
from stages.slide.revision import Revision

TRAINING_VERSION = 1
"""Raised when a change here or in the stages changes what is learnt, so that earlier models count as stale."""
NAMED = 4
"""Settings that a difference names with their values."""

_BEFORE = {"accumulate": 1, "precision": 32, "read_ahead": 0, "unit": "slide"}
"""Settings that earlier versions did not have, at what these did."""
_OF_A_SLIDE = {
    "role": "changed role",
    "fingerprint": "with other content",
    "label": "with another label",
    "mpp": "with another mpp",
    "site": "of another site",
    "patient": "of another patient",
}


def made_of(
    parts: Mapping[str, Sequence[CohortSlide]],
    *,
    facts: Mapping[str, SlideFacts],
    spec: ModelSpec,
    settings: Mapping[str, Any],
    weights: Path | None,
    chooses: str | None = None,
) -> dict[str, Any]:
    """All that a model follows from, as JSON has it; no paths, so that a folder may be moved.

    Args:
        parts: the slides, or the patients, of "train" and of each held-out part.
        facts: of the slides that can be read, by name; of one that cannot the fingerprint is None.
        spec: the model's.
        settings: of the fit.
        weights: file or folder that the encoder starts from, by its content.
        chooses: the part by which the epoch to keep is chosen; None: there is none.
    """
    if spec.task == "classification":  # which column holds a class makes no other model; earlier versions did not say
        spec = replace(spec, labels=())
    slides = {
        slide.slide_id: {
            "role": part,
            "chooses": part == chooses,
            **content_of(facts.get(slide.slide_id)),
            "label": slide.cells(spec.labels) if spec.labels else slide.label,
            "mpp": slide.mpp,
            "site": slide.site,
            **({"patient": row.patient} if row.members else {}),
        }
        for part, rows in parts.items()
        for row in rows
        for slide in row.each
    }
    made: dict[str, Any] = plain(
        {
            "version": TRAINING_VERSION,
            # `train` has no teacher, and of models of slides earlier versions did not say that they are
            "spec": {k: v for k, v in asdict(spec).items() if k != "teacher" and (k, v) != ("bags", None)},
            "settings": dict(settings),
            "weights": None if weights is None else _content(weights),
            "slides": slides,
        }
    )
    return made


def content_of(facts: SlideFacts | None) -> dict[str, str | None]:
    """A slide by its content, and the state of its files, which tells of changes that the fingerprint does not see."""
    now = None if facts is None else facts.revision
    return {
        "fingerprint": None if facts is None else facts.fingerprint,
        "written": None if now is None else now.written,
        "digest": None if now is None else now.digest,
    }


def compared(earlier: Any, now: dict[str, Any], facts: Mapping[str, SlideFacts]) -> dict[str, Any]:
    """What `made_of` gave now, to be compared with what it gave earlier: a slide whose bytes are as they were then has
    the digest that was recorded then; of one that was written since every byte is read, if there is such a digest."""
    slides = earlier.get("slides") if isinstance(earlier, Mapping) else None
    if not isinstance(slides, Mapping):
        return now
    told = {name: _compared(slides.get(name), slide, facts.get(name)) for name, slide in now["slides"].items()}
    return {**now, "slides": told}


def _compared(before: Any, slide: dict[str, Any], facts: SlideFacts | None) -> dict[str, Any]:
    if facts is None or not _recorded(before) or before["fingerprint"] != slide["fingerprint"]:
        return slide
    try:
        if facts.unchanged(Revision((), "", before["written"], before["digest"])):
            return {**slide, "digest": before["digest"]}
        return {**slide, **content_of(facts.with_digest() if before["digest"] else facts)}
    except (SlideError, OSError):  # whoever reads it for the training finds out, and tells
        return slide


def restated(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished training recorded, with the state in which its slides are now, by `compared`: they are the same
    bytes, and need not be read for it again."""
    slides = {
        name: {**before, "written": now["slides"][name]["written"]}
        if _recorded(before) and now["slides"].get(name, {}).get("fingerprint") == before["fingerprint"]
        else before
        for name, before in earlier["slides"].items()
    }
    return {**earlier, "slides": slides}


def _recorded(slide: Any) -> bool:
    """Whether the state of a slide's files is recorded: earlier versions knew fingerprints only."""
    return isinstance(slide, Mapping) and slide.keys() >= {"fingerprint", "written", "digest"}


def _content(path: Path) -> str:
    """SHA-256 of a file, or of all that lies in a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def key_of(made: Mapping[str, Any], *, every: bool = False) -> str:
    """SHA-256 of what `made_of` gave, without the slides that the model does not depend on unless ``every`` one counts;
    when they were written says nothing where a digest tells of their bytes."""
    slides = {
        name: {**slide, "written": None} if slide.get("digest") else slide
        for name, slide in made["slides"].items()
        if every or _matters(slide)
    }
    return hashlib.sha256(json.dumps({**made, "slides": slides}, sort_keys=True).encode()).hexdigest()


def differences(earlier: Any, now: Mapping[str, Any]) -> list[str]:
    """What has changed since, a phrase each; empty where the earlier model is still the one.

    A slide that cannot be read is not a change, wherever it was before: it is left out, and what was learnt from it
    while it could be read stays.
    """
    if not isinstance(earlier, Mapping) or not isinstance(earlier.get("slides"), Mapping):
        return ["it does not say what it was trained on"]
    found = []
    if earlier.get("version") != now["version"]:
        found.append("another version of training")
    if earlier.get("weights") != now["weights"]:
        found.append("other weights to start the encoder from")
    changed = [
        f"{name} was {json.dumps(before[name]) if name in before else 'not there'}, is {json.dumps(value)}"
        for part in ("spec", "settings")
        for before in [_BEFORE | (earlier.get(part) or {})]
        for name, value in now[part].items()
        if name not in before or before[name] != value
    ]
    found += changed[:NAMED] + ([f"{len(changed) - NAMED} more settings"] if len(changed) > NAMED else [])
    return found + _of_slides(earlier["slides"], now["slides"])


def smaller_steps(earlier: Any, now: Mapping[str, Any]) -> bool:
    """Whether nothing has changed but that the learning rate is lower."""
    rate = "learning_rate"
    if not isinstance(earlier, Mapping) or not earlier.get("settings", {}).get(rate, 0) > now["settings"][rate]:
        return False
    settings = {**earlier["settings"], rate: now["settings"][rate]}
    return key_of({**earlier, "settings": settings}, every=True) == key_of(now, every=True)


def _of_slides(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    counts: dict[str, list[str]] = {}
    for name in sorted({*earlier, *now}):
        before, after = earlier.get(name), now.get(name)
        if not (_matters(before) or _matters(after)):
            continue
        for words in _of_slide(before, after):
            counts.setdefault(words, []).append(name)
    return [
        f"{len(names)} slide{'s' * (len(names) > 1)} {words} ({names[0]}{', ...' * (len(names) > 1)})"
        for words, names in counts.items()
    ]


def _of_slide(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    if before is None or after is None:
        there = before or after or {}
        # one that could never be read taught nothing
        return [] if there["fingerprint"] is None else ["fewer" if before else "more"]
    found = [words for field, words in _OF_A_SLIDE.items() if before.get(field) != after.get(field)]
    if _OF_A_SLIDE["fingerprint"] in found and None in (before.get("fingerprint"), after["fingerprint"]):
        found.remove(_OF_A_SLIDE["fingerprint"])
        if after["fingerprint"]:
            found.append("that can be read now")
    if not found and (words := _of_bytes(before, after)):
        found.append(words)
    return found


def _of_bytes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """What tells against a slide's bytes being the same, though its fingerprint is; None where nothing does."""
    if not _recorded(before):
        return None
    if after["digest"] and before.get("digest"):
        return _OF_A_SLIDE["fingerprint"] if after["digest"] != before["digest"] else None
    if after["digest"]:
        return "without a digest of every byte to verify by"
    return "whose files were written since" if before["written"] != after["written"] else None


def _matters(slide: Mapping[str, Any] | None) -> bool:
    """Whether the model depends on a slide: it is fitted to it, or its epoch is chosen by it."""
    return slide is not None and (slide.get("role") == "train" or bool(slide.get("chooses")))
