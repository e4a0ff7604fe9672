"""The two losses, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from encoders.objectives import ContrastiveLoss


def test_partners_that_agree_lose_what_the_formula_says() -> None:
    rows = torch.eye(2)
    loss, chance = ContrastiveLoss(1.0)(rows, rows, np.arange(2), np.arange(2))
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-1.0))] * 2)
    assert chance.tolist() == pytest.approx([math.log(2)] * 2)


def test_the_same_item_twice_is_no_stranger() -> None:
    rows = torch.eye(3)
    items = np.array([7, 7, 8])
    loss, chance = ContrastiveLoss(1.0)(rows, rows, items, np.arange(3))
    two = math.log(1 + math.exp(-1.0))
    three = math.log(1 + 2 * math.exp(-1.0))
    assert loss.tolist() == pytest.approx([two, two, three])
    assert chance.tolist() == pytest.approx([math.log(2)] * 2 + [math.log(3)])


def test_the_temperature_learns_within_limits() -> None:
    contrast = ContrastiveLoss(0.1)
    rows, items = torch.eye(2), np.arange(2)
    contrast(rows, rows, items, items)[0].mean().backward()
    assert contrast.sharpness.grad is not None
    assert float(contrast.sharpness.grad) < 0
    with torch.no_grad():
        contrast.sharpness.fill_(9.0)
    loss, _ = contrast(rows, rows.flip(0), items, items)
    assert loss.tolist() == pytest.approx([50.0] * 2)
