"""What the encode job keeps in memory: measured, against a plan with named parts."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.loops import alone, like_a_node
from benchmarks.media import Payloads
from encoders.decoding import DECODERS
from pipelines.operators.decode_apart import DecodeLimits, DecoderProcess
from pipelines.stack_settings import (
    DIRECT_MB,
    FRAMEWORK_HEAP_MB,
    MANAGED_MB,
    METASPACE_MB,
    TASK_HEAP_MB,
)
from pipelines.warm_up import MODULES

#: What Flink allows a TaskManager to take.
JVM_MB = FRAMEWORK_HEAP_MB + TASK_HEAP_MB + sum(DIRECT_MB.values())
JVM_MB += MANAGED_MB + METASPACE_MB
#: Code, stacks and bookkeeping of the JVM, which Flink calls overhead.
OVERHEAD_MB = 192
#: Calls of each medium that an encoder is given before its memory is read.
CALLS = 4


def resident_mb(pid: int) -> dict[str, int]:
    """Megabytes of a node, and of the process that decodes for it."""
    process = psutil.Process(pid)
    children = process.children(recursive=True)
    return {
        "node_mb": process.memory_info().rss >> 20,
        "decode_mb": sum(child.memory_info().rss for child in children) >> 20,
    }


def planned(model_folder: Path, nodes: int, call_rows: int) -> dict[str, Any]:
    """Nodes times the model, and a part for each node that no model changes.

    The model is what a bare process takes for its encoders and for encoding in calls
    of so many rows.
    """
    like_a_node()
    bare = alone(_bare, model_folder, call_rows, how="spawn")
    fixed = {
        "jvm_limits_mb": JVM_MB + OVERHEAD_MB,
        "python_and_libraries_mb": round(bare["libraries_mb"]),
        "decoding_mb": round(_decoding(model_folder, call_rows)),
    }
    model = round(bare["model_mb"])
    each = sum(fixed.values())
    return {"model_mb": model, "fixed": fixed, "planned_mb": nodes * (model + each)}


def _bare(model_folder: Path, call_rows: int) -> dict[str, float]:
    own = psutil.Process()

    def taken() -> float:
        return float(own.memory_info().rss / 2**20)

    for name in MODULES:
        importlib.import_module(name)
    libraries = taken()
    from encoders.store import load_encoders

    encoders = load_encoders(model_folder / "encoders")
    for modality, encoder in encoders.items():
        payloads = Payloads(modality)
        for first in range(0, CALLS * call_rows, call_rows):
            of = [payloads[n] for n in range(first, first + call_rows)]
            encoder.encode([encoder.decode(one) for one in of])
    return {"libraries_mb": libraries, "model_mb": taken() - libraries}


def _decoding(model_folder: Path, call_rows: int) -> float:
    """Megabytes of a process that has decoded one call of each modality."""
    folder = model_folder / "encoders"
    process = DecoderProcess(folder, DecodeLimits())
    try:
        for modality in [m for m in DECODERS if (folder / m).is_dir()]:
            payloads = Payloads(modality)
            of = [payloads[n] for n in range(call_rows)]
            process.begin(modality, of)  # type: ignore[arg-type]
            process.finish()
        return float(psutil.Process(process.pid).memory_info().rss / 2**20)
    finally:
        process.close()


def growth(
    sample_mb: Callable[[], int],
    work: Callable[[], int],
    minutes: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """How resident memory grows over some minutes of work, last third against first.

    Args:
        sample_mb: the memory now.
        work: some work; gives how many events were lost.
        minutes: how long.
        say: told of each sample.
    """
    samples: list[int] = []
    began, missing = time.monotonic(), 0
    while (now := time.monotonic() - began) < 60 * minutes:
        missing += work()
        samples.append(sample_mb())
        say(f"{now:4.0f} s: {samples[-1]} MB")
    third = max(1, len(samples) // 3)
    first, last = (
        sum(some) / len(some) for some in (samples[:third], samples[-third:])
    )
    return {
        "minutes": round(minutes, 1),
        "samples_mb": samples,
        "growth": round(last / first - 1, 4),
        "missing": missing,
    }
