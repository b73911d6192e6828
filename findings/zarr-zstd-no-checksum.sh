#!/usr/bin/env bash
# zarr's default codec keeps no checksum: a chunk with a changed byte may decode to other pixels, without an error.
#
# Guess:   zarr compresses with Zstandard, whose command line tool ends each frame with a checksum, so a chunk that a disk
#          or a copy has damaged does not decode.
# Seen:    `ZstdCodec` writes frames without one unless it is given `checksum=True`, and some damage decodes to other
#          pixels. With it, none does.
# Since:   seen with zarr 3.1.6.
# Matters: what ome-zarr, ngff-zarr and others write by default has no checksum, nor has the sharding codec one for its
#          chunks (its CRC-32C is of the index alone). A slide with a flipped bit is read as another slide.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check zarr==3.1.6 numpy==2.2.6
cat > flip.py <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

rng = np.random.default_rng(0)
y, x = np.mgrid[:128, :128]
waves = 128 + 60 * np.sin(x / 7) * np.cos(y / 5)
image = (waves[..., None] + rng.integers(-4, 5, (128, 128, 3))).astype(np.uint8)


def silent(codec, name):
    """Of 200 chunks with one byte changed each: how many decode to other pixels."""
    zarr.create_array(name, data=image, chunks=image.shape, **codec)
    (chunk,) = (path for path in Path(name).rglob("*") if path.is_file() and path.name != "zarr.json")
    whole, wrong = chunk.read_bytes(), 0
    for at in rng.integers(20, len(whole), 200):
        data = bytearray(whole)
        data[at] ^= int(rng.integers(1, 256))
        chunk.write_bytes(data)
        try:
            found = zarr.open_array(name, mode="r")[:]
        except Exception:
            continue
        wrong += not np.array_equal(found, image)
    return wrong


default, checked = silent({}, "default"), silent({"compressors": ZstdCodec(checksum=True)}, "checked")
print(f"zarr {zarr.__version__}: of 200 chunks with a changed byte {default} decode to other pixels without an error")
print(f"with ZstdCodec(checksum=True): {checked}")
sys.exit(0 if default > 20 and checked == 0 else 1)
PYTHON
venv/bin/python flip.py
