#!/usr/bin/env bash
# ngff-zarr no longer opens OME-Zarr 0.4 whose chunks are zlib, and opens the same bytes under the name gzip.
#
# Guess:   whatever zarr-python reads of an OME-Zarr 0.4 image, ngff-zarr reads: zlib is one of the oldest codecs of
#          zarr v2, and one of the two that readers in Java need no native library for.
# Seen:    ArrayCreateError: "unsupported Zarr V2 array: codec zlib is not supported". The chunk deflated likewise, with
#          gzip's header and named gzip, is read. ngff-zarr reads arrays through zarrista now, not zarr-python.
# Since:   0.46.1 at the latest; 0.30.0 to 0.43.0 read both.
# Matters: an export that QuPath and Bio-Formats open by themselves is not one that every program of Python opens; the
#          codec is part of what "OME-Zarr 0.4" must be said with.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ngff-zarr==0.50.0 zarrista==0.1.0 zarr==3.1.6 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import gzip
import json
import sys
import zlib
from importlib.metadata import version
from pathlib import Path

import ngff_zarr
import numpy as np
import zarr

print("ngff-zarr", version("ngff-zarr"), "zarrista", version("zarrista"), "zarr", version("zarr"))
image = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]}
array = {"zarr_format": 2, "shape": [3, 64, 64], "chunks": [3, 64, 64], "dtype": "|u1", "fill_value": 0}
array |= {"filters": None, "order": "C", "dimension_separator": "/"}
found = {}
for name, encode in (("zlib", zlib.compress), ("gzip", gzip.compress)):
    folder = Path(f"{name}.ome.zarr")
    (folder / "0/0/0").mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    multiscale = {"version": "0.4", "name": name, "axes": axes, "datasets": [level]}
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [multiscale]}))
    (folder / "0/.zarray").write_text(json.dumps(array | {"compressor": {"id": name, "level": 1}}))
    (folder / "0/0/0/0").write_bytes(encode(image.tobytes()))
    same = bool((zarr.open_array(folder / "0", mode="r")[:] == image).all())
    try:
        pixels = np.asarray(ngff_zarr.from_ngff_zarr(str(folder)).images[0].data[...])
        found[name] = "read" if (pixels == image).all() else "other pixels"
    except Exception as exc:
        found[name] = f"{type(exc).__name__}: {exc}"
    print(f"{name}: zarr-python reads it: {same}; ngff-zarr: {found[name]}")
sys.exit(not ("zlib" in found["zlib"] and found["gzip"] == "read"))
PYTHON
