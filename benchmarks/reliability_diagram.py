"""A reliability diagram as SVG: what was said against what came true, both in logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 12
WIDE, HIGH, EDGE = 460, 400, 56
LEAST = 1e-4
COLOURS = ("#0b6e99", "#c2571a", "#4d7c0f", "#6d28d9")

Curve = list[tuple[float, float, int]]


def curve_of(y: NDArray[np.integer[Any]], score: NDArray[np.floating[Any]]) -> Curve:
    """Bins of about equal numbers of 1s: (mean score, share of 1s, cases).

    Frauds are rare: bins of equal width would hold nearly all cases in the first.
    """
    order = np.argsort(score, kind="stable")
    found = np.cumsum(y[order])
    bin_of = np.minimum((found * BINS) // max(1, int(found[-1]) + 1), BINS - 1)
    curve = []
    for one in range(BINS):
        rows = order[bin_of == one]
        if len(rows):
            curve.append((float(score[rows].mean()), float(y[rows].mean()), len(rows)))
    return curve


def svg_of(curves: Mapping[str, Curve], title: str) -> str:
    """The diagram; the dashed line is where every score would come true."""

    def at(value: float, length: int) -> float:
        share = np.log(max(value, LEAST) / LEAST) / -np.log(LEAST)
        return float(share * (length - 2 * EDGE))

    def point(said: float, was: float) -> str:
        return f"{EDGE + at(said, WIDE):.1f},{HIGH - EDGE - at(was, HIGH):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDE}" height="{HIGH}" fill="white"/>',
        f'<text x="{EDGE}" y="20" font-size="13">{title}</text>',
        f'<text x="{WIDE / 2}" y="{HIGH - 10}" text-anchor="middle">score</text>',
        f'<text x="14" y="{HIGH / 2}" transform="rotate(-90 14 {HIGH / 2})" '
        'text-anchor="middle">share of frauds</text>',
        f'<polyline points="{point(LEAST, LEAST)} {point(1, 1)}" fill="none" '
        'stroke="#888" stroke-dasharray="4 3"/>',
    ]
    for power in range(-4, 1):
        x, y = point(10.0**power, 10.0**power).split(",")
        name = f"{10.0**power:g}"
        left, low = EDGE, HIGH - EDGE
        parts += [
            f'<line x1="{x}" y1="{EDGE}" x2="{x}" y2="{low}" stroke="#ddd"/>',
            f'<line x1="{left}" y1="{y}" x2="{WIDE - EDGE}" y2="{y}" stroke="#ddd"/>',
            f'<text x="{x}" y="{low + 16}" text-anchor="middle">{name}</text>',
            f'<text x="{left - 6}" y="{y}" dy="4" text-anchor="end">{name}</text>',
        ]
    for (name, curve), colour, row in zip(
        curves.items(), COLOURS, range(len(curves)), strict=False
    ):
        points = [point(said, was) for said, was, _ in curve]
        shown = " ".join(points)
        parts.append(f'<polyline points="{shown}" fill="none" stroke="{colour}"/>')
        for one in points:
            x, y = one.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        y_text = EDGE + 14 + 16 * row
        parts.append(
            f'<text x="{EDGE + 10}" y="{y_text}" fill="{colour}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
