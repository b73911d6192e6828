#!/usr/bin/env bash
# A torchvision that was built for another torch stops an AUROC, which has nothing to do with it.
#
# Guess:   it breaks what uses its operators, such as non-maximum suppression; metrics of classification do not.
# Seen:    `import torchmetrics` fails: "operator torchvision::nms does not exist". Wherever torchvision is installed,
#          torchmetrics imports it for metrics of pictures, and so does Lightning, which needs torchmetrics. It checks
#          whether torchvision is there, not whether it can be imported. What fails is little: torchvision describes its
#          compiled operators to torch when it is imported, and the first of those that are missing raises. With the
#          descriptions of missing ones left out, it imports, AUROC is computed, and timm's networks work; who calls a
#          missing operator is told so by torchvision itself.
# Since:   seen with torchmetrics 1.9.0, torchvision 0.25.0 and torch 2.13.0.
# Matters: clusters have torch from one index and torchvision from another. A slide pipeline without any picture metric
#          then cannot train, nor score what it predicted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 pillow==12.0.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps torchvision==0.25.0  # is made for torch 2.10
cat > score.py <<'PYTHON'
import sys
from importlib.metadata import version

import torch

print(*(f"{name} {version(name)}" for name in ("torch", "torchvision", "torchmetrics")), sep=", ")
if "lenient" in sys.argv:
    describe = torch.library.register_fake

    def describe_known(operator, function=None, /, **options):
        space, _, name = operator.partition("::")
        if not hasattr(getattr(torch.ops, space), name):
            return lambda described: described
        return describe(operator, function, **options)

    torch.library.register_fake = describe_known
try:
    from torchmetrics.functional.classification import binary_auroc
except RuntimeError as exc:
    print("import torchmetrics:", exc)
    sys.exit(1)
print("AUROC", float(binary_auroc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))))
PYTHON
if venv/bin/python score.py; then exit 1; fi
echo "the same, with descriptions of missing operators left out:"
venv/bin/python score.py lenient
