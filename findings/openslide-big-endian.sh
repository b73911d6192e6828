#!/usr/bin/env bash
# OpenSlide opens no big-endian TIFF, and every big-endian BigTIFF.
#
# Guess:   byte order is the first thing that a TIFF says; a reader knows both orders or neither.
# Seen:    "Unsupported or missing image file" for a tiled RGB TIFF in big-endian order, which tifffile and Pillow read;
#          the same picture in little-endian order opens, and so does big-endian order in a BigTIFF.
# Since:   seen with OpenSlide 4.0.1.
# Matters: the message names neither cause nor cure, and reads like that of a broken download. Export tools write such
#          files, up to TIFF's 4 GB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 numpy==2.4.6 pillow==12.2.0
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import openslide
import tifffile
from PIL import Image

print("OpenSlide", openslide.__library_version__)
picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
opened = {}
for big in (False, True):
    for order in ("little", "big"):
        name = f"{'BigTIFF' if big else 'TIFF'}, {order}-endian"
        tifffile.imwrite(
            "slide.tif",
            picture,
            photometric="rgb",
            tile=(256, 256),
            byteorder="<" if order == "little" else ">",
            bigtiff=big,
            metadata=None,
        )
        assert np.array_equal(tifffile.imread("slide.tif"), picture)
        assert big or np.array_equal(np.asarray(Image.open("slide.tif")), picture)
        try:
            region = openslide.OpenSlide("slide.tif").read_region((0, 0), 0, (512, 512)).convert("RGB")
            opened[name] = bool(np.array_equal(np.asarray(region), picture))
            print(f"{name}: the same pixels: {opened[name]}")
        except openslide.OpenSlideError as exc:
            opened[name] = False
            print(f"{name}: {exc}")
sys.exit(list(opened.values()) != [True, False, True, True])
PYTHON
