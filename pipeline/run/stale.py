"""Why a result is stale: in what it differs from the one that would be made now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.output.documents import plain

_WORDS = {
    "model": "the model is another",
    "version": "another version of Saccade made it",
    "prior": "its prior is another",
    "warnings": "what its file claims is judged otherwise",
}


def differing(commit: Mapping[str, Any], fingerprint: str, made_of: Mapping[str, Any]) -> str:
    """In what a result differs from the one that would be made now, in words."""
    told = ["its file has changed"] if commit.get("fingerprint") != fingerprint else []
    before, now = commit.get("made_of"), json.loads(json.dumps(plain(made_of)))
    if not isinstance(before, dict):
        return told[0] if told else "the model, a setting or the version is another; its record does not say which"
    for name in sorted(before.keys() | now.keys()):
        was, wanted = before.get(name), now.get(name)
        if was == wanted:
            continue
        if name in _WORDS:
            told.append(_WORDS[name])
        else:
            told.append(f"{name} was {_plainly(was)} and is {_plainly(wanted)}")
    return ", ".join(told) or "it was made otherwise"


def _plainly(value: Any) -> str:
    return "not given" if value is None else json.dumps(value) if isinstance(value, dict | list) else str(value)
