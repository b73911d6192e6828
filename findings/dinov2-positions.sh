#!/usr/bin/env bash
# The same DINOv2 sees a picture of 224 px differently, by whether its class in transformers knows of registers.
#
# Guess:   registers are further tokens; with none of them, Dinov2WithRegisters computes what Dinov2 does.
# Seen:    at the size that its weights are for, 518 px, it does. At 224 px, what everybody gives it, the tokens of a small
#          random network are 12 % off: of 37 x 37 positions both make 16 x 16 bicubically, but only the class that knows
#          of registers smooths before (antialias=True). timm, too, smooths always: a DINOv2 without registers is
#          another in timm than in transformers.
# Since:   seen with transformers 5.24.0.
# Matters: who loads an encoder of this layout in another library, or pools features that two of them made, has another
#          encoder than the one that was validated; no shape, name or error tells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
venv/bin/python - <<'PYTHON'
import sys

import torch
import transformers

print("transformers", transformers.__version__)
torch.manual_seed(0)
size = dict(hidden_size=96, num_attention_heads=3, num_hidden_layers=2, image_size=518, patch_size=14)
plain = transformers.Dinov2Model(transformers.Dinov2Config(**size)).eval()
config = transformers.Dinov2WithRegistersConfig(**size, num_register_tokens=0)
other = transformers.Dinov2WithRegistersModel(config).eval()

coarse = torch.nn.functional.interpolate(torch.randn(1, 96, 12, 12), size=(37, 37), mode="bicubic")  # smooth, as learned
positions = (coarse + 0.1 * torch.randn(1, 96, 37, 37)).flatten(2).transpose(1, 2)
with torch.no_grad():
    plain.embeddings.position_embeddings[:, 1:] = positions
print("weights that do not fit:", other.load_state_dict(plain.state_dict(), strict=False))

off = {}
for px in (518, 224):
    pictures = torch.randn(1, 3, px, px)
    with torch.no_grad():
        one, two = plain(pictures).last_hidden_state, other(pictures).last_hidden_state
    off[px] = float((one - two).norm() / one.norm())
    print(f"{px} px: {one.shape[1]} tokens, off by {100 * off[px]:.4f} %")
sys.exit(not (off[518] < 1e-5 < 1e-3 < off[224]))
PYTHON
