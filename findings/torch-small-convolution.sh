#!/usr/bin/env bash
# torch convolves a thin strip of an image to other numbers than the image.
#
# Guess:   a convolution's output depends on the input under its kernel and on nothing else, so that a network without
#          padding gives the same, to the last bit, for a large image and for strips of it that overlap by the kernel.
# Seen:    on a CPU the same for strips of more than 20 480 numbers, and for thinner ones other last bits: an input that
#          small goes to another implementation. The image decides by its size which numbers it gets.
# Since:   seen with torch 2.13.0 on Linux, x86-64.
# Matters: thumbnails of slides are looked at in strips to bound memory. Where sampling, caches of features and keys of
#          results go by exact numbers, how the picture was cut must not be seen; a test on small pictures would find
#          strips to be wrong, and one on large pictures miss where they are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5
cat > strips.py <<'PYTHON'
import sys

import torch

torch.manual_seed(0)
torch.set_num_threads(1)
print("torch", torch.__version__)
layer = torch.nn.Conv2d(3, 8, 3)
image = torch.rand(3, 2000, 600)


def by_strips(rows):
    starts = range(0, image.shape[1] - 2, rows)
    return torch.cat([layer(image[:, at : at + rows + 2]) for at in starts], 1)


with torch.no_grad():
    whole = layer(image)
    found = {}
    for rows in (500, 50, 9, 4, 1):
        found[rows] = (by_strips(rows) != whole).float().mean().item()
        numbers = 3 * (rows + 2) * 600
        print(f"strips of {rows + 2:3} rows, {numbers:6} numbers: {found[rows]:.1%} of the outputs differ from the image's")
sys.exit(0 if found[500] == found[50] == 0 < found[1] else 1)
PYTHON
venv/bin/python strips.py
