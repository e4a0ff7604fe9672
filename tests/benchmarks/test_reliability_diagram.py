import xml.etree.ElementTree as ET

import numpy as np
import pytest

from benchmarks.reliability_diagram import BINS, curve_of, svg_of


def test_bins_hold_about_as_many_ones_each_and_every_case_once():
    draw = np.random.default_rng(0)
    score = draw.random(5000) ** 4
    y = (draw.random(5000) < score).astype(int)
    curve = curve_of(y, score)
    assert len(curve) == BINS
    assert sum(cases for _, _, cases in curve) == 5000
    ones = [was * cases for _, was, cases in curve]
    assert max(ones) - min(ones) <= y.sum() / BINS + 1
    for said, was, _ in curve[2:]:
        assert was == pytest.approx(said, rel=0.35)


def test_the_diagram_is_drawn_with_a_point_a_bin():
    curve = [(0.001, 0.001, 10), (0.5, 0.4, 2)]
    drawn = ET.fromstring(svg_of({"here": curve}, "title"))
    circles = [one for one in drawn if one.tag.endswith("circle")]
    assert len(circles) == 2
    # 0.001 lies a quarter of the way between 0.0001 and 1
    assert float(circles[0].get("cx")) == pytest.approx(
        56 + 0.25 * (460 - 112), abs=0.1
    )
