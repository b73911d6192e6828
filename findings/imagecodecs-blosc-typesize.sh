#!/usr/bin/env bash
# imagecodecs' Blosc does not heed `typesize`: bytes of float32 are shuffled as values of one byte, that is, not at all.
#
# Guess:   `blosc_encode(data.tobytes(), shuffle="shuffle", typesize=4)` shuffles values of four bytes, as c-blosc does by
#          that argument, and the chunk's header says 4.
# Seen:    whatever typesize is given, bytes, bytearrays and memoryviews become chunks of typesize 1, and are larger; of an
#          array its own item size is taken, whatever is given. Nothing is raised, and it decodes.
# Since:   seen with imagecodecs 2026.3.6 on Python 3.11.
# Matters: chunks of maps and features that a writer hands over as bytes, as zarr's buffers are, lose the shuffle that
#          makes floats small, and contradict the typesize in their array's metadata.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check imagecodecs==2026.3.6 numpy==2.3.5
cat > shuffle.py <<'PYTHON'
import sys
from importlib.metadata import version

import imagecodecs
import numpy as np

values = np.random.default_rng(0).random((50, 60)).astype("<f4")  # an attention map, as it may be


def header_and_size(data, **more):
    chunk = imagecodecs.blosc_encode(data, level=5, compressor="zstd", shuffle="shuffle", **more)
    return chunk[3], len(chunk)  # the fourth byte of a Blosc chunk is its typesize


found = {
    "bytes, typesize=4": header_and_size(values.tobytes(), typesize=4),
    "bytes, no typesize": header_and_size(values.tobytes()),
    "array of float32": header_and_size(values),
    "array of float32, typesize=1": header_and_size(values, typesize=1),
}
print(f"imagecodecs {version('imagecodecs')}: (typesize in the chunk, its bytes): {found}")
types = [typesize for typesize, _ in found.values()]
sys.exit(0 if types == [1, 1, 4, 4] and found["bytes, typesize=4"][1] > found["array of float32"][1] else 1)
PYTHON
venv/bin/python shuffle.py
