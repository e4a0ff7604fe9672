"""Where networks learn: what is here, and back where they serve."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from encoders.base import EncoderError
from encoders.device import at_work, learning_device, short_sums


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_auto_is_the_cpu_in_full_precision() -> None:
    device = learning_device("auto")
    assert device.type == "cpu"
    with short_sums(device):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32
    with pytest.raises(EncoderError, match=r"'cuda'.*'auto' takes what is here"):
        learning_device("cuda")


def test_a_device_torch_does_not_know_is_refused() -> None:
    with pytest.raises(EncoderError, match="learn on device 'gpu'"):
        learning_device("gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_a_network_learns_on_the_gpu_in_bfloat16_and_comes_back() -> None:
    line, device = nn.Linear(2, 2), learning_device("auto")
    with at_work([line], device), short_sums(device):
        assert line(torch.ones(1, 2).to(device)).dtype == torch.bfloat16
    assert line.weight.device.type == "cpu"
