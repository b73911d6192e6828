#!/usr/bin/env bash
# dask and zarr together lose parts of an image that is written in shards.
#
# Guess:   array.to_zarr(path, chunks=..., shards=...) either writes everything or refuses: dask knows of shards (into
#          a zarr array that exists already it regroups its blocks, so that no two write into one shard).
# Seen:    into an array that it makes itself dask writes its blocks as they are, all at once and without a lock.
#          Blocks of one shard each read the shard, add themselves and write it back, and the last one wins: a third
#          to three quarters of the image read as zeros afterwards. No error, no warning; other parts every time.
# Since:   dask 2025.12.0 (there as zarr_array_kwargs={"shards": ...}), which was the first to pass shards on;
#          2026.8.0 still; with zarr 3.1.6 and 3.4.2.
# Matters: shards are how a slide becomes hundreds of files and not a million, and blocks of a chunk's size are what
#          dask reads a slide in. The squares that are lost look like black glass, and tissue detection takes them for
#          the edge of the scan.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "dask[array]==2026.8.0" zarr==3.1.6 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import sys
import warnings

import dask
import dask.array as da
import numpy as np
import zarr

warnings.simplefilter("error")  # a warning would be a fair one
print("dask", dask.__version__, "zarr", zarr.__version__)
image = np.random.default_rng(0).integers(1, 256, (2048, 2048, 3), dtype=np.uint8)  # no zeros
blocks = da.from_array(image, chunks=(256, 256, 3))
layout = {"chunks": (256, 256, 3), "shards": (1024, 1024, 3)}


def lost(name):
    return float((zarr.open_array(name, mode="r")[:] != image).mean())


losses = []
with dask.config.set(scheduler="threads", num_workers=8):
    for i in range(5):
        blocks.to_zarr(f"made-{i}.zarr", **layout)
        losses.append(lost(f"made-{i}.zarr"))
        print(f"to_zarr(path, shards=...), try {i + 1}: {losses[-1]:.0%} of the values are lost")
    there = zarr.create_array("there.zarr", shape=image.shape, dtype=image.dtype, **layout)
    blocks.to_zarr(there)
    print(f"to_zarr(an array that exists): {lost('there.zarr'):.0%}")
sys.exit(not (max(losses) > 0 and lost("there.zarr") == 0))
PYTHON
