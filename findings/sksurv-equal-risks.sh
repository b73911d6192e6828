#!/usr/bin/env bash
# Two libraries' C-index of the same risks differ: for one of them risks have a size.
#
# Guess:   Harrell's C-index asks who has the higher risk, so multiplying all risks by one number changes nothing, and
#          lifelines and scikit-survival agree wherever no two risks are equal.
# Seen:    scikit-survival takes risks for equal that differ by no more than tied_tol, 1e-8 unless it is given: the same
#          order has 1.0, and 0.5 once all risks are a billionth. lifelines says 1.0 of both.
# Since:   seen with scikit-survival 0.28.0 and lifelines 0.30.3.
# Matters: risks of a network that has hardly begun to learn, or hazards per day of a rare event, are that near to each
#          other; papers compare C-indices that the one library gave with those of the other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check scikit-survival==0.28.0 lifelines==0.30.3 numpy==2.4.6 \
    scipy==1.17.1 pandas==2.3.3 scikit-learn==1.9.1
venv/bin/python - <<'PYTHON'
import sys

import lifelines
import numpy as np
import sksurv
from lifelines.utils import concordance_index
from sksurv.metrics import concordance_index_censored

print("lifelines", lifelines.__version__, "scikit-survival", sksurv.__version__)
times = np.arange(1.0, 9.0)
events = np.array([True, True, False, True, True, False, True, True])
risks = np.arange(8.0, 0.0, -1.0)
found = {}
for scale in (1.0, 1e-9):
    one = float(concordance_index(times, -scale * risks, events))
    other = float(concordance_index_censored(events, times, scale * risks)[0])
    found[scale] = (one, other)
    print(f"risks of 1 to 8 times {scale:g}: lifelines {one:.3f}, scikit-survival {other:.3f}")
given = float(concordance_index_censored(events, times, 1e-9 * risks, tied_tol=0.0)[0])
print(f"with tied_tol=0: {given:.3f}")
sys.exit(not (found[1.0] == (1.0, 1.0) and found[1e-9] == (1.0, 0.5) and given == 1.0))
PYTHON
