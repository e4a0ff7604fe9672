import numpy as np
import pyarrow as pa
import pytest

from connectors.packing import pack, unpack

COLUMNS = [
    np.arange(3),
    np.array([0, 2**64 - 1, 1], dtype=np.uint64),
    np.array([1.5, np.nan, -0.0]),
    np.arange(3, dtype=np.int32),
    np.array([True, False, True]),
    np.arange(6, dtype=np.float32).reshape(3, 2),
    np.empty((3, 0)),
    pa.array(["a", "", "three"]),
    pa.array([b"\x00\xff", b"", b"x" * 100]),
    pa.array(["", "", ""]),
    pa.array(["gone", "a", "bc", "d", "gone"])[1:4],
]


def test_columns_come_back_bit_for_bit():
    found = list(unpack(*pack(COLUMNS)))
    assert len(found) == len(COLUMNS)
    for column, again in zip(COLUMNS, found, strict=True):
        if isinstance(column, np.ndarray):
            assert (again.dtype, again.shape) == (column.dtype, column.shape)
            assert again.tobytes() == column.tobytes()
            assert again.flags.aligned
            assert again.flags.writeable
        else:
            again.validate(full=True)
            assert again.equals(column)


def test_a_slice_takes_no_more_than_its_own_bytes():
    long = pa.array(["x" * 1000, "a", "y" * 1000])
    assert len(pack([long[1:2]])[1]) < 30


def test_a_column_out_of_line_is_put_in_line():
    columns = [np.arange(10)[::3], np.arange(6).reshape(2, 3)[:, ::2]]
    found = list(unpack(*pack(columns)))
    assert found[0].tolist() == [0, 3, 6, 9]
    assert found[1].tolist() == [[0, 2], [3, 5]]


@pytest.mark.parametrize("empty", [np.empty(0), pa.array([], pa.string())])
def test_no_rows_are_rows_too(empty):
    (found,) = unpack(*pack([empty]))
    assert len(found) == 0
