#!/usr/bin/env bash
# transformers 5 names a vision transformer's tensors one way in memory and another way in files.
#
# Guess:   what `save_pretrained` writes has the names of `state_dict()`, as it had through all versions of 4.
# Seen:    a DINOv2 with gated MLPs has `attention.q_proj`, `mlp.gate_proj` and `mlp.up_proj` in memory; its file has
#          `attention.attention.query` and one `mlp.weights_in`, which holds both. Half of the names are others, and even
#          the number of tensors is: `load_state_dict` of the file that the same model just wrote lacks most of them, and
#          a checkpoint of `torch.save(model.state_dict())` is read by no program that knows the hub's files.
# Since:   transformers 5, seen with 5.24.0; transformers 4 has the file's names in memory, too.
# Matters: encoders of pathology (Phikon, Midnight, Hibou) are of this layout. Whoever maps their names to those of
#          another library must know two sets, or it depends on how a checkpoint was saved whether it loads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 safetensors==0.8.0
venv/bin/python - <<'PYTHON'
import sys

import torch
import transformers
from safetensors.torch import load_file

transformers.utils.logging.disable_progress_bar()
print("transformers", transformers.__version__)
config = transformers.Dinov2Config(
    hidden_size=48, num_attention_heads=3, num_hidden_layers=1, image_size=28, patch_size=14, use_swiglu_ffn=True
)
model = transformers.Dinov2Model(config)
model.save_pretrained("model")
memory, file = model.state_dict(), load_file("model/model.safetensors")
print(f"{len(memory)} tensors in memory, {len(file)} in the file; {len(memory.keys() & file.keys())} names are in both")
print("only in memory:", *sorted(name for name in memory if name not in file and name.endswith("weight")), sep="\n  ")
print("only in the file:", *sorted(name for name in file if name not in memory and name.endswith("weight")), sep="\n  ")
both = torch.cat([memory[f"encoder.layer.0.mlp.{part}_proj.weight"] for part in ("gate", "up")])
print("weights_in is gate_proj, then up_proj:", torch.equal(both, file["encoder.layer.0.mlp.weights_in.weight"]))
try:
    model.load_state_dict(file)
except RuntimeError as exc:
    print("load_state_dict of its own file:", str(exc).splitlines()[1].strip()[:110])
    sys.exit(0)
sys.exit(1)
PYTHON
