"""HDF5 files of one row a patch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

ROWS = 1024
"""Of a chunk, at most."""


def write_h5(path: Path, columns: Mapping[str, NDArray[Any]], said: Mapping[str, Mapping[str, Any]]) -> None:
    """Write datasets of as many rows each.

    Args:
        path: the file.
        columns: (N, ...) by name.
        said: attributes of some of these, by their names.

    Raises:
        ValueError: the lengths differ.
    """
    import h5py

    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"one row for each patch in every dataset, found {lengths}")
    data = io.BytesIO()  # where the disk is full HDF5 says so without its number, and may take the process with it
    with h5py.File(data, "w") as file:
        for name, column in columns.items():
            chunk = (max(1, min(ROWS, len(column))), *column.shape[1:])
            how = {"maxshape": (None, *column.shape[1:]), "chunks": chunk, "compression": "gzip", "shuffle": True}
            file.create_dataset(name, data=column, **how)
        for name, attributes in said.items():
            file[name].attrs.update({key: value for key, value in attributes.items() if value is not None})
    path.write_bytes(data.getbuffer())
