"""The tissue mask: what of it is kept and what else is counted, for every stain, fill, pen and layout; and its cost.

    python benchmarks/tissue.py [--base CHECKOUT] [--quick] [--gallery FOLDER]                          six minutes

- Pictures with known truth (`tissue_pictures`): every stain with a tenth to nearly half of it in its special colour;
  some stains in scans that leave out 5 to 60 %, filled with white, greys and black, in five layouts; pens of every
  colour around tissue of four stains. Aims: 97 % of the tissue kept, at most 2 % of glass, fill and pen counted.
- Real pen (`pen/` of the data folder, HistoQC's examples): how much of the hand-marked pen is left out, and how much of
  the tissue is kept that the mask of the checkout ``--base`` finds away from pen and that is pink or purple.
- µs of CPU per pixel on a picture of 3125 x 2500 pixels, alternately with that checkout's: the least of three.

``--gallery`` writes masks over their pictures, to be looked at. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.places import ROOT, data_folder
from benchmarks.tissue_pictures import (
    FILLS,
    LAYOUTS,
    MPP,
    PENS,
    STAINS,
    Picture,
    hand_marked,
    outlined,
    pen,
    ring,
    slide,
    sparse,
)
from stages.tissue.mask import tissue_mask

SPARSE_STAINS = ("H&E", "melanin", "Sirius red", "silver", "DAB", "eosin", "pale IHC", "pale IHC, brown")
SHARES = (0.05, 0.2, 0.4, 0.6)
PEN_STAINS = ("H&E", "pale IHC", "Masson blue", "DAB")
TIMED = """
import sys, time, numpy as np
try:
    from stages.tissue.mask import tissue_mask
except ImportError:
    from stages.tissue import tissue_mask
rgb, out = np.load(sys.argv[1]), sys.argv[2]
start = time.process_time()
mask = tissue_mask(rgb, float(sys.argv[3]))
print(1e6 * (time.process_time() - start) / mask.size)
np.save(out, mask)
"""


def pictures(quick: bool) -> Iterator[tuple[str, str, Picture]]:
    """(kind, name, picture) of all."""
    for stain in STAINS:
        for share in (0.25,) if quick else (0.1, 0.25, 0.45):
            yield "stain", f"{stain}, {share:.0%} special", slide(stain, share=share)
    for stain in SPARSE_STAINS[: 2 if quick else None]:
        whole = slide(stain)
        for layout in LAYOUTS:
            for fill, colour in FILLS.items():
                for share in SHARES[1::2] if quick else SHARES:
                    yield "fill", f"{stain}, {layout}, {fill}, {share:.0%}", sparse(whole, share, layout, colour)
    for stain in PEN_STAINS[: 2 if quick else None]:
        whole = slide(stain)
        for name, colour in PENS.items():
            yield "pen", f"{name} around {stain}", pen(whole, colour, ring())


def in_checkout(checkout: str, rgb: NDArray[np.uint8], folder: Path) -> tuple[NDArray[np.bool_], float]:
    """The mask of a checkout's code, in a process of its own, and its µs per pixel."""
    np.save(folder / "rgb.npy", rgb)
    out = subprocess.run(
        [sys.executable, "-c", TIMED, folder / "rgb.npy", folder / "mask.npy", str(MPP)],
        env={**os.environ, "PYTHONPATH": checkout},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return np.load(folder / "mask.npy"), float(out.stdout)


def pinkish(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an image (H, W, 3) is pink or purple, as H&E is."""
    values = rgb.astype(int)
    return np.asarray((values[..., 0] > values[..., 1] + 15) & (values[..., 2] > values[..., 1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="a checkout to compare with")
    parser.add_argument("--quick", action="store_true", help="a tenth of the pictures")
    parser.add_argument("--gallery", type=Path, help="a folder for pictures of what is missed")
    options = parser.parse_args()
    here = str(ROOT)
    result: dict[str, object] = {}
    worst: dict[str, list[tuple[float, float, str]]] = {}
    for kind, name, picture in pictures(options.quick):
        mask = tissue_mask(picture.rgb, MPP)
        kept = picture.kept(mask)
        counted = max(
            picture.counted(mask, what, rim)
            for what, rim in ((picture.glass, 3), (picture.fill, 3), (picture.drawn, 0))
        )
        worst.setdefault(kind, []).append((kept, counted, name))
        if kept < 0.97 or counted > 0.02:
            print(f"missed: {name}: {kept:.1%} of the tissue kept, {counted:.1%} of the rest counted", flush=True)
            if options.gallery:
                options.gallery.mkdir(parents=True, exist_ok=True)
                outlined(picture.rgb, mask).save(options.gallery / f"{name.replace(' ', '-').replace(',', '')}.png")
    for kind, rows in worst.items():
        good = sum(kept >= 0.97 and counted <= 0.02 for kept, counted, _ in rows)
        least, most = min(rows), max(rows, key=lambda row: row[1])
        print(
            f"{kind}: {good} of {len(rows)} within the aims; least kept {least[0]:.1%} ({least[2]}), "
            f"most else counted {most[1]:.1%} ({most[2]})"
        )
        result[kind] = {"within": good, "of": len(rows), "least_kept": least[0], "most_counted": most[1]}
    with tempfile.TemporaryDirectory() as folder:
        for name, rgb, marked in hand_marked(data_folder() / "pen"):
            mask = tissue_mask(rgb, MPP)
            row = {"pen_left_out": float(1 - mask[marked].mean())}
            if options.base:
                old, _ = in_checkout(options.base, rgb, Path(folder))
                tissue = old & pinkish(rgb) & ~ndimage.binary_dilation(marked, iterations=10)
                row |= {"pen_left_out_before": float(1 - old[marked].mean())}
                row |= {"tissue_kept": float(mask[tissue].mean())} if tissue.any() else {}
            print(name, {key: f"{value:.1%}" for key, value in row.items()}, flush=True)
            result[name] = row
            if options.gallery:
                options.gallery.mkdir(parents=True, exist_ok=True)
                outlined(rgb, mask).save(options.gallery / f"{name}.png")
        for name, picture in (("H&E", slide("H&E")), ("pens", pen(slide("Masson blue"), PENS["red"], ring()))):
            large = np.asarray(Image.fromarray(picture.rgb).resize((3125, 2500), Image.Resampling.BICUBIC))
            times: dict[str, list[float]] = {}
            for _ in range(3):
                for checkout in [here, *([options.base] if options.base else [])]:
                    times.setdefault(checkout, []).append(in_checkout(checkout, large, Path(folder))[1])
            least_times = [min(values) for values in times.values()]
            print(f"{name}: µs per pixel {' against '.join(f'{value:.2f}' for value in least_times)}")
            result[f"us_per_pixel, {name}"] = least_times
    print(json.dumps(result))


if __name__ == "__main__":
    main()
