"""Where networks learn: on a GPU in bfloat16, or in float32 where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from encoders.base import EncoderError

CPU = torch.device("cpu")


def learning_device(name: str) -> torch.device:
    """The device to learn on; "auto" is the first GPU, or the CPU without one.

    Raises:
        EncoderError: torch knows no such device, or it is not here.
    """
    if name == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else CPU
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        msg = f"learn on device '{name}': {reason}; 'auto' takes what is here"
        raise EncoderError(msg) from error
    return device


@contextmanager
def at_work(networks: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """The networks on the device; back on the CPU at the end, where they serve."""
    moved = list(networks)
    try:
        for network in moved:
            network.to(device)
        yield
    finally:
        for network in moved:
            network.to(CPU)


def short_sums(device: torch.device) -> torch.autocast:
    """Products in bfloat16 where the device gains by it: on a GPU."""
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=device.type != CPU.type
    )
