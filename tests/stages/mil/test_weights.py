"""Teachers from files: what CLAM's and others' networks say is what we say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.mil.weights import read_teacher

D, H, A, C = 7, 5, 4, 3


class Gated(nn.Module):
    """A gated attention by its formula."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(H, A), nn.Tanh())
        self.attention_b = nn.Sequential(nn.Linear(H, A), nn.Sigmoid())
        self.attention_c = nn.Linear(A, branches)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.attention_c(self.attention_a(h) * self.attention_b(h))
        return out


class Clam(nn.Module):
    """Of the layers and names that CLAM's networks have."""

    def __init__(self, many: bool) -> None:
        super().__init__()
        self.many = many
        self.attention_net = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Dropout(0.25), Gated(C if many else 1))
        self.classifiers: nn.Module = nn.ModuleList(nn.Linear(H, 1) for _ in range(C)) if many else nn.Linear(H, C)
        self.instance_classifiers = nn.ModuleList(nn.Linear(H, 2) for _ in range(C))

    def forward(self, x: Tensor) -> Tensor:
        h = self.attention_net[:3](x)
        pooled = self.attention_net[3](h).softmax(0).T @ h
        if not self.many:
            return self.classifiers(pooled)[0]
        return torch.cat([head(one) for head, one in zip(self.classifiers, pooled, strict=True)])


class Plain(nn.Module):
    """Attention without a gate, on the features themselves, and a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(D, A), nn.Tanh(), nn.Linear(A, 1))
        self.classifier = nn.Sequential(nn.Linear(D, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        logit = self.classifier[0](self.attention(x).softmax(0).T @ x)[0]
        return torch.cat([torch.zeros(1), logit])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("make", [lambda: Clam(False), lambda: Clam(True), Plain], ids=["SB", "MB", "plain"])
def test_a_teacher_says_what_its_network_says(make: Callable[[], nn.Module], suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x, path = make().eval(), torch.randn(11, D), tmp_path / f"teacher{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, path)
    else:
        save_file(model.state_dict(), path)
    assert read_teacher(path).logits(x).tolist() == pytest.approx(model(x).tolist(), abs=1e-5)


def cut(state: dict[str, Tensor]) -> object:
    return {**state, "attention_net.3.attention_c.weight": torch.zeros(1, A + 1)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (cut, r"last and first layer do not fit, found \(5,\) and \(4,\)"),
        (lambda state: {**state, "norm.weight": torch.ones(H)}, "has layers that attention MIL.*norm.weight"),
        (lambda state: {"conv.weight": torch.ones(3, 3)}, r"no attention MIL.*conv.weight \(3, 3\)"),
        (lambda state: {**state, "classifiers.bias": torch.full((C,), torch.nan)}, "classifiers.bias has values"),
        (lambda state: torch.ones(2), "holds a Tensor, no state dict"),
        (lambda state: nn.Linear(2, 2), "is no file of weights only"),
    ],
    ids=["shapes", "layers", "other", "NaN", "tensor", "code"],
)
def test_what_is_no_teacher_is_refused_in_a_line(
    change: Callable[[dict[str, Tensor]], object], told: str, tmp_path: Path
) -> None:
    torch.save(change(Clam(False).state_dict()), tmp_path / "teacher.pt")
    with pytest.raises(ValueError, match=told) as caught:
        read_teacher(tmp_path / "teacher.pt")
    assert "\n" not in str(caught.value)
