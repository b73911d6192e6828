"""Documents hold nothing that JSON lacks."""

from __future__ import annotations

import json

import numpy as np

from pipeline.output.documents import read_json, write_json


def test_json_has_no_nan_and_takes_numpy_and_paths(folder):
    value = {"a": np.float32(0.5), "b": [float("nan"), np.inf, -np.inf], "c": np.arange(3), 4: (folder, True, None)}
    write_json(folder / "v.json", value)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    read = json.loads((folder / "v.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read == {"a": 0.5, "b": [None, None, None], "c": [0, 1, 2], "4": [str(folder), True, None]}
    assert read_json(folder / "v.json") == read
