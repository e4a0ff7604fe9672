import base64

import numpy as np
import pyarrow as pa
import pytest

from connectors.cells import CLEAN_COLUMN, READ_CELL, EventLimits, RefusedError, show

LIMITS = EventLimits(max_id_chars=4, max_number=1000.0)

GOOD = [
    ("number", 2, 2.0),
    ("number", -1000, -1000.0),
    ("string", "", ""),
    ("string", "café", "café"),
    ("id", "card", "card"),
    ("id", 1234, "1234"),
    ("bool", True, 1.0),
    ("bool", False, 0.0),
    ("text", "hello", "hello"),
    ("bytes", base64.b64encode(b"\x00\xff").decode(), b"\x00\xff"),
    ("bytes", b"raw", b"raw"),
]


@pytest.mark.parametrize(("kind", "value", "read"), GOOD)
def test_a_good_cell_is_read_as_its_kind(kind, value, read):
    found = READ_CELL[kind]("field", value, LIMITS)
    assert found == read
    assert type(found) is type(read)


BAD = [
    ("number", "2", "expected a number, got str '2'"),
    ("number", True, "expected a number, got bool True"),
    ("number", None, "got NoneType None"),
    ("number", float("nan"), "not a finite number"),
    ("number", float("-inf"), "not a finite number"),
    ("number", 10**400, "not a finite number"),
    ("string", 5, "expected text, got int 5"),
    ("string", "half \ud83d", "half a surrogate pair"),
    ("id", "", "expected 1..4 characters"),
    ("id", 12345, "expected 1..4 characters"),
    ("id", 1.0, "expected text, got float 1.0"),
    ("id", True, "expected text, got bool True"),
    ("bool", 1, "expected true or false, got int 1"),
    ("bool", "true", "expected true or false"),
    ("bytes", "***", "not base64"),
    ("bytes", "YWI", "not base64"),
    ("bytes", "café", "not base64"),
    ("bytes", [1], "expected base64 text, got list [1]"),
]


@pytest.mark.parametrize(("kind", "value", "reason"), BAD)
def test_a_bad_cell_is_refused_with_its_name_and_what_was_wrong(kind, value, reason):
    with pytest.raises(RefusedError) as refused:
        READ_CELL[kind]("field", value, LIMITS)
    assert str(refused.value).startswith("field: ")
    assert reason in str(refused.value)
    assert refused.value.kind == "unreadable"


def test_a_number_over_the_limit_is_a_matter_of_limits():
    with pytest.raises(
        RefusedError, match=r"1000\.5 is over the limit of 1000"
    ) as over:
        READ_CELL["number"]("amount", 1000.5, LIMITS)
    assert over.value.kind == "limits"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (10.5, "amount: 10.5 is over the limit of 10"),
        (-0.25, "amount: -0.25 is under the limit of 0"),
    ],
)
def test_a_column_of_numbers_may_have_limits_of_its_own(value, reason):
    limits = EventLimits(numbers={"amount": (0.0, 10.0), "fee": (-2e30, 2e30)})
    with pytest.raises(RefusedError) as refused:
        READ_CELL["number"]("amount", value, limits)
    assert (str(refused.value), refused.value.kind) == (reason, "limits")
    column = pa.array([1.0, value])
    assert CLEAN_COLUMN["number"]("amount", column, limits) is None
    assert CLEAN_COLUMN["number"]("fee", column, limits).tolist() == [1.0, value]
    for edge in (0.0, 10.0):
        assert READ_CELL["number"]("amount", edge, limits) == edge
    # the limit of all numbers holds for each
    assert CLEAN_COLUMN["number"]("fee", pa.array([1e13]), limits) is None


def test_what_is_shown_of_a_value_stays_short():
    assert show("x" * 1000) == "str '" + "x" * 59
    assert show(10**5000) == "int too long to show"


COLUMNS = [
    ("number", pa.array([1, 2], pa.int32()), [1.0, 2.0]),
    ("number", pa.array([1.5, -1000.0]), [1.5, -1000.0]),
    ("string", pa.array(["a", ""]), ["a", ""]),
    ("id", pa.array(["ab", "1"]), ["ab", "1"]),
    ("id", pa.array([12, 3]), ["12", "3"]),
    ("id", pa.array(["ab", "1"], pa.large_string()), ["ab", "1"]),
    ("bool", pa.array([True, False]), [1.0, 0.0]),
    ("bytes", pa.array([b"a", b""]), [b"a", b""]),
    ("bytes", pa.array([b"ab", b"cd"], pa.large_binary()), [b"ab", b"cd"]),
]


@pytest.mark.parametrize(("kind", "column", "read"), COLUMNS)
def test_a_clean_column_reads_as_its_cells_do(kind, column, read):
    found = CLEAN_COLUMN[kind]("field", column, LIMITS)
    assert found is not None
    assert found.tolist() == read
    if kind in ("number", "bool"):
        assert found.dtype == np.float64
    else:
        assert found.type == (pa.binary() if kind == "bytes" else pa.string())
    cells = [READ_CELL[kind]("field", cell, LIMITS) for cell in column.to_pylist()]
    assert found.tolist() == cells


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("number", pa.array(["1"])),
        ("number", pa.array([True])),
        ("number", pa.array([float("nan")])),
        ("number", pa.array([1000.5])),
        ("string", pa.array([1])),
        ("id", pa.array([""])),
        ("id", pa.array(["12345"])),
        ("id", pa.array([12345])),
        ("id", pa.array([1.5])),
        ("bool", pa.array([1])),
        ("bytes", pa.array(["YQ=="])),
    ],
)
def test_a_column_that_is_not_clean_is_left_to_the_cells(kind, column):
    assert CLEAN_COLUMN[kind]("field", column, LIMITS) is None
