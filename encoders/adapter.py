"""Low-rank adapters: a few weights beside a frozen transformer, exchanged at any time.

Each attention projection `y = W x` becomes `y + B A x`; `A` and `B` are small, and `B`
starts at zero. The transformer is never changed: hooks add what the adapter says.

Legend: `R` rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from encoders.base import EncoderLoadError

#: The file an adapter is saved in, beside the encoder's own files or alone.
ADAPTER_FILE = "adapter.safetensors"
#: What adapters share and their file leaves out.
SHARED = "grams."

#: Attention projections of queries and values, as the families of models name them.
PROJECTIONS = ("query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "c_attn")

#: A linear map with its weight turned round, in some decoder-type models.
TRANSPOSED = "Conv1D"


class LowRank(nn.Module):
    """What is added to one projection: (..., inputs) to (..., outputs)."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zero until the adapter has learnt."""
        out: torch.Tensor = self.up(self.down(x))
        return out


class Adapter(nn.Module):
    """One `LowRank` per attention projection of a transformer, hooked to it.

    Args:
        model: stays as it is, apart from the hooks; it is no part of this module.
        rank: R.
    """

    def __init__(self, model: nn.Module, *, rank: int) -> None:
        super().__init__()
        places = find_projections(model)
        parts = [LowRank(*_sizes(module), rank) for module in places.values()]
        for part, module in zip(parts, places.values(), strict=True):
            module.register_forward_hook(_Hook(part))
        self.parts = nn.ModuleList(parts)


class _Hook:
    """Adds a part's answer to a projection's."""

    def __init__(self, part: LowRank) -> None:
        self.part = part

    def __call__(
        self, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor
    ) -> torch.Tensor:
        added: torch.Tensor = self.part(inputs[0])
        return output + added


def find_projections(model: nn.Module) -> dict[str, nn.Module]:
    """The linear maps an adapter goes beside, by name.

    Where none has a known name, all of the model's linear maps are taken.
    """
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == TRANSPOSED
    }
    known = {k: v for k, v in linear.items() if k.rpartition(".")[2] in PROJECTIONS}
    return known or linear


def _sizes(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear map."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight = module.weight
    if not isinstance(weight, torch.Tensor):
        msg = f"fit an adapter beside {type(module).__name__}: it has no weight"
        raise EncoderLoadError(msg)
    return weight.shape[0], weight.shape[1]


def merged_weight(module: nn.Module) -> torch.Tensor:
    """The weight of a linear map with what an adapter beside it adds."""
    weight = module.weight
    if not isinstance(weight, torch.Tensor):
        msg = f"read {type(module).__name__}: it has no weight"
        raise EncoderLoadError(msg)
    weight = weight.detach()
    for hook in module._forward_hooks.values():
        if isinstance(hook, _Hook):
            weight = weight + (hook.part.up.weight @ hook.part.down.weight).detach()
    return weight


def write_adapter(network: nn.Module, base: str, folder: Path) -> None:
    """Save what an adapter's training changes, apart from the transformer.

    Args:
        network: holds the adapter.
        base: names what the adapter was trained beside.
        folder: gets `adapter.safetensors`.
    """
    from safetensors.torch import save_file

    state = network.state_dict()
    own = {k: v.contiguous() for k, v in state.items() if not k.startswith(SHARED)}
    save_file(own, folder / ADAPTER_FILE, metadata={"base": base})


def read_adapter(
    network: nn.Module, base: str, folder: Path
) -> dict[str, torch.Tensor]:
    """All weights of the network with the saved adapter's among them.

    Raises:
        EncoderLoadError: missing, damaged, or trained beside something else.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / ADAPTER_FILE
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("base")
            own = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError) as error:
        msg = f"swap adapter {path}: {error}"
        raise EncoderLoadError(msg) from error
    if found != base:
        msg = (
            f"swap adapter {path}: it was trained beside {found}, this encoder is "
            f"{base}; transformer, settings and n-grams must be the same"
        )
        raise EncoderLoadError(msg)
    return {**network.state_dict(), **own}
