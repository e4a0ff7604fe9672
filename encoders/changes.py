"""Small changes to pictures and log-mels that keep their meaning, each row its own.

Legend: `B` batch, `C` channels, `H` `W` height and width; of a log-mel, bands and time.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

#: How noise varies from point to point, in the unit of a log-mel of -1..1: 3 dB.
ROUGHNESS = 0.08
#: The mel scale: 2595 log10(1 + f / 700 Hz).
MEL_SCALE, MEL_HZ = 2595.0, 700.0


def jitter(
    x_BCHW: torch.Tensor,
    generator: torch.Generator,
    *,
    shift: tuple[float, float],
    scale: tuple[float, float],
    turn: float = 0.0,
    lean: float = 0.0,
    bend: float = 0.0,
) -> torch.Tensor:
    """Every picture moved, stretched, turned and bent a little by random amounts.

    Args:
        x_BCHW: pictures, or log-mels as pictures of (mel, time).
        generator: where the amounts come from.
        shift: largest move along (H, W), as a share of that side.
        scale: largest stretch along (H, W), 0.1 for 0.9 to 1.1.
        turn: largest turn in radians.
        lean: largest slant, in widths per height.
        bend: largest move of single parts, as a share of a side; neighbours move alike.
    """
    x = x_BCHW.float()
    rows = len(x)
    u = torch.rand((rows, 6), generator=generator) * 2 - 1
    cos, sin = (u[:, 0] * turn).cos(), (u[:, 0] * turn).sin()
    high, wide = 1 + u[:, 1] * scale[0], 1 + u[:, 2] * scale[1]
    slant = u[:, 5] * lean - sin
    across = torch.stack([cos * wide, slant * high, u[:, 4] * 2 * shift[1]], dim=1)
    down = torch.stack([sin * wide, cos * high, u[:, 3] * 2 * shift[0]], dim=1)
    theta = torch.stack([across, down], dim=1)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    if bend:
        coarse = torch.rand((rows, 2, 4, 4), generator=generator) * 2 - 1
        moved = functional.interpolate(
            coarse, size=x.shape[2:], mode="bicubic", align_corners=True
        )
        grid = grid + moved.permute(0, 2, 3, 1) * 2 * bend
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def other_voice(
    x_BCHW: torch.Tensor, generator: torch.Generator, *, most: float, top_hz: float
) -> torch.Tensor:
    """Each clip as a longer or shorter throat would say it.

    Args:
        x_BCHW: log-mels from 0 Hz on, -1 where there is nothing.
        generator: where the amounts come from.
        most: largest gain in speed, 0.25 for 0.8 to 1.25 times.
        top_hz: upper end of the highest band.
    """
    u = torch.rand((len(x_BCHW), 1), generator=generator) * 2 - 1
    return at_speed(x_BCHW, torch.exp(u * math.log1p(most)), top_hz)


def at_speed(
    x_BCHW: torch.Tensor, speed_B1: torch.Tensor, top_hz: float
) -> torch.Tensor:
    """Each clip played so many times as fast: what it sounds is higher and shorter.

    Args:
        x_BCHW: log-mels from 0 Hz on, -1 where there is nothing.
        speed_B1: 1 leaves a clip as it is.
        top_hz: upper end of the highest band.
    """
    high, wide = x_BCHW.shape[2:]
    top_mel = float(_mel_of(torch.tensor(top_hz)))
    mel_H = torch.arange(1, high + 1) / (high + 1) * top_mel
    hz_H = MEL_HZ * (10 ** (mel_H / MEL_SCALE) - 1)
    band_BH = _mel_of(hz_H / speed_B1) / top_mel * (high + 1) - 1
    down_BH = (2 * band_BH + 1) / high - 1
    across_BW = ((2 * torch.arange(wide) + 1) / wide) * speed_B1 - 1
    return sampled(x_BCHW + 1, across_BW, down_BH) - 1


def sampled(
    x_BCHW: torch.Tensor, across_BW: torch.Tensor, down_BH: torch.Tensor
) -> torch.Tensor:
    """Each picture read at other columns and other rows, 0 beyond its edges.

    Args:
        x_BCHW: pictures, or log-mels.
        across_BW: where each column is read, -1 the left edge, 1 the right one.
        down_BH: where each row is read, -1 the upper edge, 1 the lower one.
    """
    shape = (len(x_BCHW), down_BH.shape[1], across_BW.shape[1])
    grid = torch.stack(
        [across_BW[:, None, :].expand(shape), down_BH[:, :, None].expand(shape)], dim=3
    )
    return functional.grid_sample(x_BCHW, grid, align_corners=False)


def _mel_of(hz: torch.Tensor) -> torch.Tensor:
    return MEL_SCALE * torch.log10(1 + hz / MEL_HZ)


def thicken(
    x_BCHW: torch.Tensor, generator: torch.Generator, most: float
) -> torch.Tensor:
    """Bright strokes of a random half of the rows grown, of the others shrunk.

    Args:
        x_BCHW: pictures.
        generator: where the amounts come from.
        most: 1 for as much as one pixel on each side.
    """
    amount = (torch.rand((len(x_BCHW), 1, 1, 1), generator=generator) * 2 - 1) * most
    grown = functional.max_pool2d(x_BCHW, 3, stride=1, padding=1)
    shrunk = -functional.max_pool2d(-x_BCHW, 3, stride=1, padding=1)
    other = torch.where(amount > 0, grown, shrunk)
    return x_BCHW + (other - x_BCHW) * amount.abs()


def blur(x_BCHW: torch.Tensor, generator: torch.Generator, most: float) -> torch.Tensor:
    """Each picture mixed with its 3x3 averages, by a share of at most `most`."""
    share = torch.rand((len(x_BCHW), 1, 1, 1), generator=generator) * most
    smooth = functional.avg_pool2d(
        x_BCHW, 3, stride=1, padding=1, count_include_pad=False
    )
    return x_BCHW + (smooth - x_BCHW) * share


def colour_bands(
    x_BCHW: torch.Tensor, generator: torch.Generator, most: float
) -> torch.Tensor:
    """Another microphone: a smooth curve over the bands added, at most about `most`."""
    knots = (torch.rand((len(x_BCHW), 1, 5), generator=generator) * 2 - 1) * most
    curve = functional.interpolate(
        knots, size=x_BCHW.shape[2], mode="linear", align_corners=True
    )
    return x_BCHW + curve.unsqueeze(3)


def add_floor(
    x_BCHW: torch.Tensor,
    generator: torch.Generator,
    *,
    low: float,
    high: float,
    tilt: float = 0.0,
    sharpness: float,
) -> torch.Tensor:
    """Background noise: powers added to those that are there, in logarithms.

    Args:
        x_BCHW: log-mels.
        generator: where the amounts come from.
        low: least level of the noise, in the unit of the log-mels.
        high: its highest level.
        tilt: how far single bands of it may lie off that level; neighbours alike.
        sharpness: natural logarithms of power per unit of the log-mels.
    """
    rows = len(x_BCHW)
    level = low + torch.rand((rows, 1, 1, 1), generator=generator) * (high - low)
    rough = torch.randn(x_BCHW.shape, generator=generator) * ROUGHNESS
    noise = colour_bands(level + rough, generator, tilt)
    return torch.logaddexp(x_BCHW * sharpness, noise * sharpness) / sharpness


def hide_stripes(
    x_BCHW: torch.Tensor,
    generator: torch.Generator,
    *,
    bands: float,
    time: float,
) -> torch.Tensor:
    """One stripe of bands and one of time set to the row's mean (SpecAugment).

    Args:
        x_BCHW: log-mels.
        generator: where the places come from.
        bands: largest height of the stripe, as a share of all bands.
        time: largest width of the stripe, as a share of the time.
    """
    rows, _, high, wide = x_BCHW.shape
    u = torch.rand((4, rows, 1), generator=generator)
    hidden = []
    for size, share, length, start in (
        (high, bands, u[0], u[1]),
        (wide, time, u[2], u[3]),
    ):
        at = torch.arange(size) / size
        width = length * share
        first = start * (1.0 - width)
        hidden.append((at >= first) & (at < first + width))
    stripe = hidden[0][:, None, :, None] | hidden[1][:, None, None, :]
    mean = x_BCHW.mean(dim=(2, 3), keepdim=True)
    return torch.where(stripe, mean, x_BCHW)
