"""The folder that the door's examples are typed in: slides, a model, a cohort table, a configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from makers import tissue_pixels, write_config, write_slide

CONFIG = """
view: {attention_mpp: 8, patch_px: 32}
sampling: {samples: 8}
training: {epochs: 2, batch_size: 4, calibration_slides: 2, device: cpu}
"""


@pytest.fixture(scope="session")
def before(slides_folder: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as nobody has changed it."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(slides_folder, folder / "slides")
    shutil.copy(checkpoint, folder / "model.safetensors")
    lines = ["slide,patient,label,split"]
    for i in range(6):
        write_slide(folder / f"s{i}.tif", tissue_pixels(420 + 7 * i, 400, margin=0.1), levels=2, factor=4)
        lines.append(f"s{i}.tif,p{i},{'ab'[i % 2]},{'train' if i < 4 else 'test'}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    write_config(folder, dim=8, more=CONFIG)
    return folder


@pytest.fixture
def examples(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the examples, as a user would have it."""
    shutil.copytree(before, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
