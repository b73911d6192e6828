#!/usr/bin/env bash
# Lightning makes of Ctrl-C an exit with 1.
#
# Guess:   KeyboardInterrupt leaves `Trainer.fit` as it leaves any function, after Lightning has put things away; a caller
#          that catches it can say what is kept and how to go on, and the shell sees 130.
# Seen:    `fit` raises SystemExit(1) instead, which no `except KeyboardInterrupt` and no `except Exception` sees. What it
#          came from is still there, as the exception's context.
# Since:   seen with lightning 2.6.6 and torch 2.13.0.
# Matters: a training of hours is what people interrupt. A command whose exit code 1 means that some slides failed looks
#          as if it had finished, and says nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 lightning==2.6.6
cat > train.py <<'PYTHON'
import logging
import sys
import warnings
from importlib.metadata import version

import lightning
import torch

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        raise KeyboardInterrupt  # as the signal would

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


print(*(f"{name} {version(name)}" for name in ("torch", "lightning")), sep=", ")
trainer = lightning.Trainer(
    max_epochs=1,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
try:
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.zeros(2, 1)))
except BaseException as exc:
    print(f"fit raised {exc!r}, in the context of {exc.__context__!r}")
    sys.exit(0 if isinstance(exc, SystemExit) and exc.code == 1 else 1)
sys.exit(1)
PYTHON
venv/bin/python train.py
