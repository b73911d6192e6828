"""The blocks of a network, one after the other, whatever they are called."""

from __future__ import annotations

from torch import nn

STACKS = ("blocks", "stages", "layers", "features")
"""What networks call the stack of their blocks."""


def blocks_of(body: nn.Module) -> list[nn.Module]:
    """The network's blocks from the first to the last; those of stages one after the other.

    Raises:
        ValueError: it has none that are known as such.
    """
    for name in STACKS:
        stack = getattr(body, name, None)
        if isinstance(stack, nn.Module) and len(list(stack.children())) > 1:
            return _flat(stack)
    numbered = [getattr(body, f"layer{n}") for n in range(1, 5) if hasattr(body, f"layer{n}")]  # residual networks
    if numbered:
        return [block for stage in numbered for block in _flat(stage)]
    raise ValueError(
        f"{type(body).__name__} has no blocks that are known as such; it can learn as a whole or not at all"
    )


def _flat(stack: nn.Module) -> list[nn.Module]:
    found = []
    for child in stack.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            found += _flat(child)
        elif isinstance(inner := getattr(child, "blocks", None), nn.Sequential | nn.ModuleList):
            found += _flat(inner)
        else:
            found.append(child)
    return found


def layers_of(body: nn.Module) -> list[list[nn.Parameter]]:
    """The network's parameters: what is before the blocks, each block, what is after them; each parameter once.

    What lies between two blocks goes with the one before it.
    """
    blocks = blocks_of(body)
    index = {id(parameter): n for n, block in enumerate(blocks, 1) for parameter in block.parameters()}
    layers: list[list[nn.Parameter]] = [[] for _ in range(len(blocks) + 2)]
    reached = 0
    for parameter in body.parameters():
        reached = index.get(id(parameter), reached)
        inside = id(parameter) in index
        layers[reached if inside or reached < len(blocks) else len(blocks) + 1].append(parameter)
    return layers
