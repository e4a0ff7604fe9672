from typing import Any

import numpy as np
import pytest
import torch

from fusion.model import FusionConfig
from fusion.scorer import FusionScorer
from tests.fusion.small_model import model


def cases(rows: int = 6) -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(5)
    x = draw.normal(size=(rows, 4, 16)).astype(np.float32)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    mask = draw.random((rows, 4)) < 0.6
    mask[0] = True
    return x, mask, draw.normal(size=rows).astype(np.float32)


def test_without_media_the_logit_is_the_trees() -> None:
    x, _, tree = cases()
    mask = np.zeros((6, 4), bool)
    mask[:3, 0] = True
    logit, *_ = FusionScorer(model()).score(x, mask, tree)
    assert logit.tolist() == tree.tolist()


@pytest.mark.parametrize("place", [1, 2, 3])
def test_one_of_the_media_adds_evidence(place: int) -> None:
    x, _, tree = cases()
    mask = np.zeros((6, 4), bool)
    mask[:, place] = True
    logit, *_ = FusionScorer(model()).score(x, mask, tree)
    assert (np.abs(logit - tree) > 1e-3).all()


def test_gates_are_zero_for_the_absent_only() -> None:
    x, mask, tree = cases()
    _, gates, *_ = FusionScorer(model()).score(x, mask, tree)
    assert (gates[~mask] == 0).all()
    assert (gates[mask] > 0).all()
    assert (gates <= 1).all()


@pytest.mark.parametrize("junk", [7.0, np.nan, np.inf])
def test_what_lies_in_an_absent_slot_changes_nothing(junk: float) -> None:
    x, mask, tree = cases()
    scorer = FusionScorer(model())
    other = np.where(mask[..., None], x, np.float32(junk))
    before, after = scorer.score(x, mask, tree), scorer.score(other, mask, tree)
    for left, right in zip(before, after, strict=True):
        assert np.array_equal(left, right)


def test_fused_rows_have_unit_length_and_nothing_gives_zeros() -> None:
    x, mask, tree = cases()
    mask[5], mask[4] = False, [False, False, True, False]
    logit, gates, fused, _ = FusionScorer(model()).score(x, mask, tree)
    assert np.allclose(np.linalg.norm(fused[:5], axis=1), 1, atol=1e-5)
    assert (fused[5] == 0).all()
    assert (gates[5] == 0).all()
    assert logit[5] == tree[5]


def test_the_tree_logit_is_heard_beyond_being_added() -> None:
    x, mask, tree = cases()
    scorer = FusionScorer(model())
    low, high = scorer.score(x, mask, tree)[0], scorer.score(x, mask, tree + 2)[0]
    assert abs(high[0] - low[0] - 2) > 1e-3


def test_a_row_scores_the_same_alone_and_in_a_batch() -> None:
    x, mask, tree = cases(40)
    scorer = FusionScorer(model())
    whole = scorer.score(x, mask, tree)
    for row in range(40):
        one = slice(row, row + 1)
        alone = scorer.score(x[one], mask[one], tree[one])
        for left, right in zip(alone, whole, strict=True):
            assert np.allclose(left[0], right[row], atol=1e-5)


def test_an_empty_batch_gives_empty_arrays() -> None:
    x, mask, tree = cases()
    logit, gates, fused, _ = FusionScorer(model()).score(x[:0], mask[:0], tree[:0])
    assert (logit.shape, gates.shape, fused.shape) == ((0,), (0, 4), (0, 16))
    deltas = FusionScorer(model()).leave_one_out(x[:0], mask[:0], tree[:0])
    assert deltas.shape == (0, 4)


def test_leave_one_out_is_the_logit_with_less_the_logit_without() -> None:
    x, mask, tree = cases()
    scorer = FusionScorer(model())
    deltas = scorer.leave_one_out(x, mask, tree)
    whole = scorer.score(x, mask, tree)[0]
    for place in range(4):
        without = mask.copy()
        without[:, place] = False
        expected = whole - scorer.score(x, without, tree)[0]
        expected = np.where(mask[:, place], expected, 0)
        assert np.allclose(deltas[:, place], expected, atol=1e-5)
    assert np.abs(deltas[0]).min() > 1e-4


def test_what_is_not_relied_on_says_less_and_its_gate_falls() -> None:
    x, mask, tree = cases()
    mask[:] = [True, True, False, False]
    whole = FusionScorer(model()).score(x, mask, tree)
    half = FusionScorer(model(), {"text": 0.5}).score(x, mask, tree)
    none = FusionScorer(model(), {"text": 0.0}).score(x, mask, tree)
    assert np.allclose(none.gates[:, 1], 0)
    assert np.allclose(none.gates[:, 0] / whole.gates[:, 0], 1, atol=0.5)
    assert np.abs(none.said - whole.said).max() > 0  # gates hear it no longer
    assert (half.gates[:, 1] < whole.gates[:, 1]).all()
    assert not np.allclose(half.logit, whole.logit)


def test_what_is_said_and_the_rest_make_up_the_logit() -> None:
    x, mask, tree = cases()
    made = model()
    torch.nn.init.zeros_(made.verdict.weight)
    torch.nn.init.zeros_(made.trust_guess)
    out = FusionScorer(made).score(x, mask, tree)
    media = mask[:, 1:].any(axis=1)
    expected = tree + np.where(media, out.said[:, 1:].sum(axis=1), 0)
    assert np.allclose(out.logit, expected, atol=1e-4)


def test_tokens_are_named_and_agreement_is_of_pairs() -> None:
    x, mask, _ = cases()
    scorer = FusionScorer(model())
    assert scorer.config.tokens[-1] == "image+audio"
    cosine = scorer.agreement(x, mask)
    assert cosine.shape == (6, 6)
    assert cosine[0, -1] == pytest.approx(x[0, 2] @ x[0, 3], abs=1e-5)
    assert (cosine[~mask[:, 3], -1] == 0).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, mask, tree = cases()
    with pytest.raises(ValueError, match=r"expected \(6, 4, 16\)"):
        FusionScorer(model()).score(x[:, :, :8], mask, tree)


def test_stacked_blocks_work_as_one_does() -> None:
    x, mask, tree = cases()
    config = FusionConfig(width=16, dim=8, hidden=8, layers=3)
    logit, gates, *_ = FusionScorer(model(config)).score(x, mask, tree)
    assert np.isfinite(logit).all()
    assert (gates[~mask] == 0).all()
