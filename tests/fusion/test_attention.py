import torch

from fusion.attention import GatedCrossAttention, agreement, unit
from fusion.config import pairs_of


def block() -> GatedCrossAttention:
    torch.manual_seed(0)
    made = GatedCrossAttention(3, 8, heads=2, dropout=0.0).eval()
    torch.nn.init.normal_(made.gate.weight)
    return made


def test_pairs_are_in_order() -> None:
    assert pairs_of(3) == ((0, 1), (0, 2), (1, 2))


def test_unit_keeps_a_row_of_zeros() -> None:
    rows = unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert torch.allclose(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_an_absent_modality_has_gate_zero_and_a_present_one_does_not() -> None:
    mask = torch.tensor([[True, False, True]])
    _, gates = block()(torch.randn(1, 3, 8), mask)
    assert gates[0, 1].item() == 0.0
    assert 0 < gates[0, 0].item() < 1
    assert 0 < gates[0, 2].item() < 1


def test_an_absent_modality_is_never_heard() -> None:
    mask = torch.tensor([[True, False, True]])
    tokens = torch.randn(1, 3, 8)
    changed = tokens.clone()
    changed[0, 1] = 100.0
    made = block()
    before, after = made(tokens, mask), made(changed, mask)
    assert torch.equal(before[0][0, [0, 2]], after[0][0, [0, 2]])
    assert torch.equal(before[1], after[1])


def test_a_present_modality_is_heard_by_the_others() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    tokens = torch.randn(1, 3, 8)
    changed = tokens.clone()
    changed[0, 1] = torch.randn(8)
    made = block()
    before, after = made(tokens, mask), made(changed, mask)
    assert not torch.allclose(before[0][0, 0], after[0][0, 0])


def test_a_modality_alone_hears_nothing_and_nothing_turns_into_nan() -> None:
    mask = torch.tensor([[True, False, False], [False, False, False]])
    tokens = torch.randn(2, 3, 8)
    out, gates = block()(tokens, mask)
    assert torch.isfinite(out).all()
    assert gates[1].tolist() == [0.0, 0.0, 0.0]
    made = block()
    own = tokens[:1, :1] + made.feed(made.feed_norm(tokens[:1, :1]))
    assert torch.allclose(out[:1, :1], own, atol=1e-6)


def test_agreement_is_the_cosine_of_every_pair() -> None:
    x = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]])
    # pairs (0, 1), (0, 2), (1, 2): 45, 90 and 45 degrees
    expected = torch.tensor([[0.70711, 0.0, 0.70711]])
    assert torch.allclose(agreement(x), expected, atol=1e-4)


def test_agreement_with_nothing_is_zero() -> None:
    x = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [3.0, 0.0]]])
    assert torch.allclose(agreement(x), torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6)
