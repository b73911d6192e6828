#!/usr/bin/env bash
# torchmil loses the labels of slides with a dot in their names, all but the first that it loads, and says nothing.
#
# Guess:   `TridentWSIDataset` with a table of file names and labels gives each bag its label, or raises.
# Seen:    it cuts the suffix off every name of the table again with each bag that it loads. `TCGA-A1.1.svs` is
#          `TCGA-A1.1` for the first bag and `TCGA-A1` for the second, whose label is an empty tensor; of slides whose names
#          differ behind the dot only, several rows become one name.
# Since:   seen with torchmil 1.0.2.
# Matters: TCGA's slides are called so, `...-DX1.F6E9A5DF-...svs`. A loss over empty labels is NaN or 0, not an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchmil==1.0.2
cat > labels.py <<'PYTHON'
import csv
import sys
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
from torchmil.datasets import TridentWSIDataset

names = ["TCGA-A1.1", "TCGA-A1.2", "TCGA-B2.1"]
Path("features_encoder").mkdir()
for name in names:
    with h5py.File(f"features_encoder/{name}.h5", "w") as file:
        file["features"] = np.ones((3, 4), np.float32)
with open("labels.csv", "w", newline="") as file:
    csv.writer(file).writerows([("slide", "label"), *((f"{name}.svs", 1) for name in names)])
bags = TridentWSIDataset(
    "./", "labels.csv", "encoder", bag_keys=["X", "Y"], wsi_name_col="slide", wsi_label_col="label"
)
found = {name: bags[i]["Y"].tolist() for i, name in enumerate(bags.get_bag_names())}
print(f"torchmil {version('torchmil')}: each slide has the label 1 in the table; loaded are {found}")
sys.exit(0 if found == {"TCGA-A1.1": [1], "TCGA-A1.2": [], "TCGA-B2.1": []} else 1)
PYTHON
venv/bin/python -W ignore labels.py 2>/dev/null
