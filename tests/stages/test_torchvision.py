"""A torchvision that does not fit torch stops nothing that can do without its compiled operators."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from makers import ROOT

from stages.torchvision import admit_torchvision

UNFIT = """
import warnings
import torch
warnings.warn("Failed to load image Python extension")
from torchvision import models, ops, transforms

@torch.library.register_fake("torchvision::no_such_operator")
def described(boxes):
    return boxes

@torch.library.register_fake("aten::no_such_operator", lib=None)
def described_too(boxes):
    return boxes
"""
"""What torchvision does at its import, without the operators that it then describes."""
PARTS = ("models", "ops", "transforms")


@pytest.fixture
def torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of a torchvision that is imported in place of any other."""
    source = tmp_path / "torchvision" / "__init__.py"
    source.parent.mkdir()
    for name in PARTS:
        (source.parent / f"{name}.py").write_text("def __getattr__(name):\n    return print\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    return source


def test_one_without_its_operators_is_imported(torchvision: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself it cannot be; torch is left as it was."""
    torchvision.write_text(UNFIT)
    describe = torch.library.register_fake
    with pytest.raises(RuntimeError, match="no_such_operator"), pytest.warns(UserWarning, match="Failed to load"):
        __import__("torchvision")
    admit_torchvision()
    assert sys.modules["torchvision"].described(1) == 1
    assert torch.library.register_fake is describe
    for name in ("torchvision", *(f"torchvision.{part}" for part in PARTS)):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    "error", ["RuntimeError('built for\\nCUDA')", "OSError('built for CUDA')", "ImportError('built for CUDA')"]
)
def test_one_that_is_broken_otherwise_is_told_in_one_line(
    torchvision: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    torchvision.write_text(f"raise {error}")
    monkeypatch.setattr("stages.torchvision.version", lambda name: "1.2")
    words = r"^torchvision 1\.2 cannot be imported beside torch 1\.2 \(built for CUDA\): .*pip uninstall torchvision$"
    with pytest.raises(ImportError, match=words):
        admit_torchvision()


@pytest.mark.slow
def test_training_and_metrics_need_none(torchvision: Path) -> None:
    """Lightning and torchmetrics import it, and use it for nothing that is done here."""
    torchvision.write_text(UNFIT)
    code = """
import pipeline.train.fit, sys
from pipeline.statistics.metrics import evaluate
found = evaluate(["a", "b"], [[0.9, 0.1], [0.2, 0.8]], ["p", "q"], ["a", "b"])
print(found["auroc"]["value"], "torchvision" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(torchvision.parent.parent), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "1.0 True\n", done.stderr
