"""Layer-wise learning rates: the deeper a layer lies below the last, the less it changes (Howard & Ruder 2018)."""

from __future__ import annotations

from torch import nn


def layer_rates(module: nn.Module, decay: float) -> dict[str, float]:
    """Factor of the learning rate for each parameter by name: 1 for the last layer, `decay` for the one below and so on.

    Layers are the innermost members of ModuleLists (a network's blocks), what stands before, between or behind them counts with the
    next or the last block; the parameters of a module must be defined in the order in which they are used.
    """
    blocks = {
        f"{name}.{key}."
        for name, part in module.named_modules()
        if isinstance(part, nn.ModuleList)
        for key, _ in part.named_children()
    }
    depth: dict[str, int] = {}
    seen: list[str] = []
    for name, _ in module.named_parameters():
        block = max((block for block in blocks if name.startswith(block)), key=len, default="")
        if block and block not in seen:
            seen.append(block)
        depth[name] = max(len(seen) - 1, 0)
    return {name: float(decay ** (max(len(seen) - 1, 0) - place)) for name, place in depth.items()}
