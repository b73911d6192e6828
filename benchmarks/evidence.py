"""What evidence costs, and whether it adds up.

    python benchmarks/evidence.py MODEL SLIDE [SLIDE ...] [--features DIR]

Predicts each slide and writes its artefacts into a temporary folder, as a run does. Prints, in CPU seconds, what the
prediction took and what the pictures (overlay and evidence), the evidence (map, gallery) and the rest of the artefacts
took, their share of the whole, and how far contributions are from adding up to the log-odds; and one JSON line.
Features of a frozen encoder are made anew, unless --features names a folder that keeps them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.model.build import keep_features
from pipeline.model.checkpoint import load_model
from pipeline.predict import SlidePrediction, predict_slide
from pipeline.run import artefacts
from pipeline.run.pictures import draw_pictures, told_in_pictures
from stages.pyramid.open import open_pyramid


class Clock:
    """CPU seconds by what they are spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    def __call__(self, what: str, work: Callable[[], Any]) -> Any:
        """Do some work, and count it."""
        began = time.process_time()
        found = work()
        self.spent[what] += time.process_time() - began
        return found


def adds_up(found: SlidePrediction) -> float:
    """By how much contributions miss the log-odds of the probabilities, over the classes."""
    said = found.attribution
    p = np.array(list(found.probabilities.values()))
    total = said.constant + said.patches.sum(0) + said.unread
    sure = (p > 1e-12) & (1 - p > 1e-12)  # else the probability has lost the digits
    return float(np.abs(total - np.log(p / (1 - p)))[sure].max(initial=0.0))


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("slides", type=Path, nargs="+")
    parser.add_argument("--features", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clock, worst = Clock(), 0.0
    with tempfile.TemporaryDirectory() as scratch:
        features = arguments.features or Path(scratch) / "features"
        model = keep_features(load_model(arguments.model), features)
        for number, path in enumerate(arguments.slides):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            found = clock("prediction", partial(predict_slide, open_pyramid(path), model))
            worst = max(worst, adds_up(found))
            clock("evidence", partial(artefacts.write_evidence, folder, path.name, found))
            clock("artefacts", partial(artefacts.write_artefacts, folder, path.name, found))
            told, mpp = told_in_pictures(path.name, found, artefacts.told_name(found)), found.slide.facts.require_mpp()
            clock("pictures", partial(draw_pictures, folder, {"pictures": told, "mpp": [mpp.x, mpp.y]}))
    rest = clock.spent["artefacts"] - clock.spent["evidence"]
    whole = clock.spent["prediction"] + clock.spent["artefacts"] + clock.spent["pictures"]
    parts = {"prediction": clock.spent["prediction"], "pictures": clock.spent["pictures"]}
    parts |= {"evidence": clock.spent["evidence"], "other artefacts": rest}
    for name, seconds in parts.items():
        print(f"{name:16} {seconds / len(arguments.slides):7.3f} CPU s a slide, {seconds / whole:6.1%}")
    both = (parts["pictures"] + parts["evidence"]) / whole
    print(f"pictures and evidence: {both:.1%} of a run; contributions add up to {worst:.1e}")
    print(json.dumps({"slides": len(arguments.slides), **parts, "pictures_and_evidence": both, "adds_up": worst}))


if __name__ == "__main__":
    main()
