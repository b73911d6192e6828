#!/usr/bin/env bash
# OpenSlide shows one row of every tile that a slide's right edge cuts, where a TIFF is grey with transparency.
#
# Guess:   a tiled grey TIFF with an alpha channel reads like a tiled RGB TIFF with one: as it is stored.
# Seen:    whole tiles are right; of the tiles that the right edge cuts, the first row is right and no other pixel is:
#          most are transparent, though every stored pixel is opaque. The same picture as RGB with alpha is right everywhere.
# Since:   seen with OpenSlide 4.0.1 and the libtiff that comes with it.
# Matters: transparent reads as background, so a strip along the slide's edge, up to a tile wide, is white glass. Nothing
#          is raised. ImageMagick, for one, writes such files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import openslide
import tifffile

print("OpenSlide", openslide.__library_version__)
grey = np.random.default_rng(0).integers(40, 200, (512, 600)).astype(np.uint8)
opaque = np.full_like(grey, 255)
right = {}
for name, planes, photometric in (("grey", [grey], "minisblack"), ("RGB", [grey] * 3, "rgb")):
    tifffile.imwrite(
        "slide.tif",
        np.dstack([*planes, opaque]),
        photometric=photometric,
        extrasamples=["unassalpha"],
        planarconfig="contig",
        tile=(256, 256),
        metadata=None,
    )
    shown = np.asarray(openslide.OpenSlide("slide.tif").read_region((0, 0), 0, (600, 512)))
    same = (shown[..., 0] == grey) & (shown[..., 3] == 255)
    right[name] = [float(same[:, :512].mean()), float(same[[0, 256], 512:].mean()), float(same[1:256, 512:].mean())]
    print(
        f"{name} with alpha: right in whole tiles {right[name][0]:.0%}, in the first rows of cut tiles "
        f"{right[name][1]:.0%}, in their other rows {right[name][2]:.0%}"
    )
sys.exit(not (right["RGB"] == [1, 1, 1] and right["grey"][:2] == [1, 1] and right["grey"][2] < 0.5))
PYTHON
