#!/usr/bin/env bash
# ome-zarr stores an array that is in memory in chunks of up to 128 MiB, all colours together.
#
# Guess:   write_image(array) cuts the image into chunks of some hundred to a thousand pixels, as zarr does by itself
#          and as the format's viewers want them; or one chunk a level where a picture is small.
# Seen:    level 0 of 9000 x 9000 RGB lies in chunks of 6688 x 6688, the coarser levels in one chunk each: the array is
#          wrapped by dask, whose blocks are made for computing, and a block becomes a chunk. 256 x 256 pixels, 0.2 MB,
#          cost 134 MB decoded. `storage_options={"chunks": (3, 512, 512)}` gives what is meant. Nothing is said.
# Since:   0.14.0; 0.16.0 and 0.18.0 likewise. 0.12.2 left the choice to zarr: 1125 x 1125, a chunk a colour.
# Matters: "lazy" is gone: a patch of a slide costs 600 times its pixels, each time, and a reader of eight threads
#          holds a gigabyte of chunks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ome-zarr==0.18.0 zarr==3.1.6 dask==2026.8.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import zarr
from ome_zarr.writer import write_image

print("ome-zarr", version("ome-zarr"), "dask", version("dask"), "zarr", version("zarr"))
image = np.zeros((3, 9000, 9000), np.uint8)
write_image(image, "default.ome.zarr", axes="cyx")
write_image(image, "asked.ome.zarr", axes="cyx", storage_options={"chunks": (3, 512, 512)})
chunks = {}
for name in ("default", "asked"):
    group = zarr.open_group(f"{name}.ome.zarr", mode="r")
    levels = dict(sorted(group.arrays()))
    chunks[name] = levels["s0"].chunks
    print(name, {level: (array.shape, array.chunks) for level, array in levels.items()})
decoded = int(np.prod(chunks["default"]))
print(f"decoded for 256 x 256 pixels, at least: {decoded / 1e6:.0f} MB, {decoded / (3 * 256 * 256):.0f} times their own")
sys.exit(not (decoded > 10**8 and chunks["asked"] == (3, 512, 512)))
PYTHON
