"""A fusion model small enough for tests."""

import torch

from fusion.config import FusionConfig
from fusion.model import FusionModel

SMALL = FusionConfig(width=16, dim=8, hidden=8)


def model(config: FusionConfig = SMALL) -> FusionModel:
    """A model with every weight away from zero, as after a fit."""
    torch.manual_seed(3)
    made = FusionModel(config)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    for reading in (made.line, made.curve):
        torch.nn.init.normal_(reading)
    made.curve[:, :2] = torch.tensor([-1.0, 3.0])
    return made.eval()
