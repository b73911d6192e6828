"""What reading less is worth with a large encoder: seconds for the patches of a draw against all tiles of a slide.

    python benchmarks/encoders.py          # H-optimus' ViT-g/14, 1.1 billion parameters: about ten minutes on two cores
    python benchmarks/encoders.py --small  # kaiko's ViT-S/16: half a minute

The network has its release's exact layout and random weights, which are written as a file and loaded as a user's would
be: how long it takes does not depend on what the weights are. Needs the extra `timm` and 10 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from stages.encoder.backbone import Backbone
from stages.encoder.load import load_backbone
from stages.encoder.timm_models import import_timm

BATCH = 8


def write_random(path: Path, architecture: str, options: dict[str, Any]) -> None:
    """A network's tensors, all random, by timm's names."""
    timm = import_timm("this benchmark")
    with torch.device("meta"):
        network = timm.create_model(architecture, num_classes=0, **options)
    generator = torch.Generator().manual_seed(0)
    save_file({n: torch.randn(t.shape, generator=generator) * 0.02 for n, t in network.state_dict().items()}, path)


def seconds(backbone: Backbone, count: int) -> float:
    """Wall time of encoding ``count`` patches."""
    patches = torch.randint(0, 256, (count, 224, 224, 3), dtype=torch.uint8)
    start = time.perf_counter()
    for part in patches.split(BATCH):
        backbone(part)
    return time.perf_counter() - start


def main() -> None:
    """Load, warm up, time a draw and some tiles, extrapolate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a ViT-S in place of the ViT-g")
    parser.add_argument("--patches", type=int, default=32, help="of a draw")
    parser.add_argument("--measured", type=int, default=64, help="tiles that are timed")
    parser.add_argument("--tiles", type=int, default=15000, help="of a slide")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    asked = parser.parse_args()
    name, architecture, options = (
        ("kaiko-s16", "vit_small_patch16_224", {})
        if asked.small
        else ("h-optimus-0", "vit_giant_patch14_reg4_dinov2", {"img_size": 224, "init_values": 1e-5})
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_random(path, architecture, options)
        start = time.perf_counter()
        backbone = load_backbone(name, weights=path, precision=asked.precision)
        loading = time.perf_counter() - start
    seconds(backbone, 1)
    draw, tiles = seconds(backbone, asked.patches), seconds(backbone, asked.measured)
    whole = tiles / asked.measured * asked.tiles
    found = {
        "encoder": name,
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "precision": asked.precision,
        "threads": torch.get_num_threads(),
        "notes": backbone.card.notes,
        "loading_s": round(loading, 1),
        "patches": asked.patches,
        "draw_s": round(draw, 2),
        "tiles_measured": asked.measured,
        "tile_s": round(tiles / asked.measured, 3),
        "tiles": asked.tiles,
        "whole_slide_s": round(whole),
        "times_faster": round(whole / draw),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
