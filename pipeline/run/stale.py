"""What of a result is stale: in what it differs from the one that would be made now, and what goes with its slide."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.output.documents import plain
from pipeline.output.slide_folder import lease_of, read_commit, withdraw
from pipeline.run.artefacts import DATA
from pipeline.run.pictures import PICTURES
from stages.lease import HeldError, lease
from stages.place import Place
from stages.slide.revision import Revision, touched, untouched

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


def withdraw_former(out: Path, slide_id: str, path: Place) -> None:
    """Take back the result of a slide that has failed and is another by now: one that was made of what its file was
    before. Where the file is gone or cannot be read, or another run writes there, it stays."""
    folder = out / "slides" / slide_id
    with suppress(HeldError, OSError):
        record = read_commit(folder)
        recorded = None if record is None else Revision.recorded(record.get("revision"))
        if record is None or recorded is None or record.get("path") != str(path) or not isinstance(path, Path):
            return
        now = touched(path, recorded.names) if os.access(path, os.R_OK) else None
        if now is None or now == recorded.touched or untouched(path, recorded):
            return
        with lease(lease_of(out / "slides", slide_id)):
            if read_commit(folder) == record:  # else another run has just made it anew
                withdraw(folder, record, DATA | PICTURES)


def _plainly(value: Any) -> str:
    return "not given" if value is None else json.dumps(value) if isinstance(value, dict | list) else str(value)
