#!/usr/bin/env bash
# Lightning takes a smaller step where the last batches of an epoch are fewer than are accumulated.
#
# Guess:   with `accumulate_grad_batches=N` a step's gradient is the mean over the batches that it was gathered from, so that
#          N batches learn what one batch N times as large does.
# Seen:    it is their sum divided by N, however many they are: of 5 batches and N = 4 the epoch's second step, made of one
#          batch, is a quarter of what that batch alone would give.
# Since:   seen with lightning 2.6.6 and torch 2.13.0.
# Matters: cohorts of slides are small, so that an epoch is a few steps and most epochs end with such a one: a run on a
#          smaller GPU with accumulation is another training than the one that it stands for.
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
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps = []

    def training_step(self, batch, index):
        return self.weight * batch.mean()  # every batch's gradient is 1

    def on_before_optimizer_step(self, optimizer):
        self.steps.append(float(self.weight.grad))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


print("lightning", version("lightning"))
module = Module()
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, accumulate_grad_batches=4, **quiet)
trainer.fit(module, torch.utils.data.DataLoader(torch.ones(10), batch_size=2))
print("gradients of 5 batches, each 1, gathered by 4:", module.steps)
sys.exit(module.steps != [1.0, 0.25])
PYTHON
venv/bin/python train.py
