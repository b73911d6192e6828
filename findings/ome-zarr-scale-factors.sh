#!/usr/bin/env bash
# ome-zarr counts the scale factors that it is given and does not look at them.
#
# Guess:   write_image(..., scale_factors=[4, 16]) writes levels 4 and 16 times coarser than the image, as the
#          argument's description says, or refuses.
# Seen:    levels 2 and 4 times coarser, without a word. A list of n whole numbers is taken for n halvings, whatever
#          the numbers are. The metadata tell the levels as they are, so the file is valid. The same request spelled
#          as dictionaries, [{"y": 4, "x": 4}, {"y": 16, "x": 16}], is carried out.
# Since:   0.14.0, where the argument came; 0.15.0 to 0.18.0 still.
# Matters: a slide's levels are spaced by 4, and its overview is the level 32 or 64 times coarser. Asked for [4, 16,
#          64], the coarsest level is 8 times coarser instead: 64 times the pixels for whoever opens "the last level"
#          as a thumbnail, and a model that takes the level by its index sees tissue at another scale.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ome-zarr==0.18.0 zarr==3.1.6 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import zarr
from ome_zarr.writer import write_image

print("ome-zarr", version("ome-zarr"))
image = np.zeros((3, 1024, 1024), np.uint8)


def coarser(name, factors):
    write_image(image, name, axes="cyx", scale_factors=factors)
    group = zarr.open_group(name, mode="r")
    levels = group.attrs["ome"]["multiscales"][0]["datasets"]
    return [1024 // group[level["path"]].shape[-1] for level in levels][1:]


counted = True
for factors in ([4, 16], [8], [4, 16, 64]):
    found = coarser("-".join(map(str, factors)), factors)
    print(f"scale_factors={factors}: levels {found} times coarser")
    counted &= found == [2 ** (i + 1) for i in range(len(factors))]
spelled = coarser("spelled", [{"y": 4, "x": 4}, {"y": 16, "x": 16}])
print(f"the first as dictionaries: levels {spelled} times coarser")
sys.exit(not (counted and spelled == [4, 16]))
PYTHON
