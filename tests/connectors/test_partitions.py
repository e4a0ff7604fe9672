import numpy as np
import pytest
from kafka.partitioner.default import murmur2

from connectors.partitions import partitions_of


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_it_chooses_as_the_clients_of_kafka_do(partitions):
    rng = np.random.default_rng(5)
    keys = ["", "a", "ab", "abc", "abcd", "\0", "a\0", "ключ"]
    keys += ["x" * int(size) + "ä" for size in rng.integers(0, 40, 200)]
    keys += [f"case-{number}" for number in range(200)]
    expected = [(murmur2(k.encode()) & 0x7FFFFFFF) % partitions for k in keys]
    assert partitions_of(keys, partitions).tolist() == expected


def test_no_keys_have_no_partitions():
    assert partitions_of([], 2).tolist() == []
