#!/usr/bin/env bash
# dask.compute gives results of different kinds back sorted by kind, not in the order in which they were asked for.
#
# Guess:   dask.compute(a, b, c, d) returns the results of a, b, c and d, in this order, whatever each of them is.
# Seen:    of a delayed value, an array, a delayed value and an array it returns both delayed values first, then both
#          arrays; so does one delayed list of them. With one kind alone the order stands.
# Since:   seen with dask 2026.8.0, synchronous and threaded.
# Matters: a batch of slides of which some are read as arrays and others delayed, as where a part is kept in memory, is
#          read in one computation; patches of equal shape then go to the wrong patients, and nothing fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "dask[array]==2026.8.0" numpy==2.4.6
venv/bin/python - <<'PYTHON'
import sys

import dask
import dask.array as da
from dask import delayed

print("dask", dask.__version__)


def told(results):
    return [int(value) for value in results]


mixed = [delayed(int)(0), da.full((), 1), delayed(int)(2), da.full((), 3)]
alike = [delayed(int)(value) for value in range(4)]
found = {
    "mixed, synchronous": told(dask.compute(*mixed, scheduler="sync")),
    "mixed, threaded": told(dask.compute(*mixed, scheduler="threads")),
    "alike": told(dask.compute(*alike, scheduler="sync")),
}
for name, order in found.items():
    print(f"{name}: 0 1 2 3 come back as {order}")
wanted = {"mixed, synchronous": [0, 2, 1, 3], "mixed, threaded": [0, 2, 1, 3], "alike": [0, 1, 2, 3]}
sys.exit(found != wanted)
PYTHON
