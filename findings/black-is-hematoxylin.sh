#!/usr/bin/env bash
# Colour deconvolution finds the most hematoxylin where there is no slide at all.
#
# Guess:   rgb2hed gives black, which no stain makes, no hematoxylin, or about as much as a dark nucleus has.
# Seen:    1.21, against 0.14 in a dark nucleus: nine times as much. Optical density is cut off at a transmission of
#          one in a million, which 8 bits cannot tell, so 0 counts as a density of 13.8 and 1 of 255, the next value
#          that there is, as 5.5. Only inks that leave no red at all outdo black. And black is what OpenSlide gives
#          beside a slide: transparent pixels, which are black once they are RGB.
# Since:   seen with scikit-image 0.20.0, 0.22.0 and 0.26.0.
# Matters: a map that looks where hematoxylin is densest looks at the scan's black border, at ink and at pigment; one
#          black pixel in nine weighs as much as a place full of nuclei.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check scikit-image==0.26.0 \
    openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import openslide
import skimage
import tifffile
from skimage.color import rgb2hed

print("scikit-image", skimage.__version__, "OpenSlide", openslide.__library_version__)
colours = {"black": (0, 0, 0), "dark nucleus": (70, 50, 120), "eosin": (220, 130, 180), "grey": (128, 128, 128)}
found = {}
for name, colour in colours.items():
    found[name] = float(rgb2hed(np.array([[colour]], np.uint8))[0, 0, 0])
    print(f"hematoxylin in {name} {colour}: {found[name]:.3f}")

tissue = np.empty((512, 512, 3), np.uint8)
tissue[:] = colours["dark nucleus"]
tifffile.imwrite(
    "slide.tif", tissue, tile=(256, 256), photometric="rgb", resolution=(20000, 20000), resolutionunit="CENTIMETER"
)
region = openslide.OpenSlide("slide.tif").read_region((256, 0), 0, (512, 512)).convert("RGB")
density = rgb2hed(np.asarray(region))[..., 0]
inside, outside = float(density[:, :256].mean()), float(density[:, 256:].mean())
print(f"a region half off a slide that is one large nucleus: {inside:.3f} on it, {outside:.3f} beside it")
sys.exit(not (found["black"] > 8 * found["dark nucleus"] and outside > 8 * inside))
PYTHON
