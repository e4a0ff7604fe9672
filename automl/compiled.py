"""Compiles all compiled code once, so that no job waits for it: `make setup` runs this.

Numba keeps what it compiles beside the sources and compiles again only what changed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from automl.candidates import TreeCandidate
from automl.key_table import KeyTable
from automl.keys import groups, key_of
from automl.task import TaskSpec
from automl.windows import EntityWindows

_TASK = {
    "name": "compile",
    "entities": {"card": "card"},
    "features": [
        {
            "name": "risk",
            "entity": "card",
            "agg": "rate",
            "column": "label",
            "window": "1h",
        }
    ],
}


def compile_all() -> None:
    """Calls every compiled function once, with the types that jobs call it with."""
    spec = TaskSpec.from_json(_TASK).resolve({"card": "string"})
    windows = EntityWindows(spec, "card")
    key = np.array([key_of("a")], dtype=np.uint64)
    groups(key, 1)
    at = np.array([0], dtype=np.int64)
    windows.add_labels(key, at, np.ones(1))
    windows.observe(key, at, {"card": key}, clock_ms=at, case_keys=key)
    for part in windows.dump(1, 0):
        windows.restore(part)
    windows.add_labels(key, at, np.ones(1))  # the first after a restart does more
    table = KeyTable(64)
    table.add(key, at)
    table.find(key, at)
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 3))
    tree = TreeCandidate.fit(x, (x[:, 0] > 0).astype(np.int64), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tree.txt"
        tree.save(file)
        loaded = TreeCandidate.load(file)
    loaded.predict_logit(x)
    loaded.contributions(x)


if __name__ == "__main__":
    began = time.monotonic()
    compile_all()
    print(
        f"compiled code ready after {time.monotonic() - began:.0f} s", file=sys.stderr
    )
