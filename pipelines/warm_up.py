"""A job that ends at once and leaves TaskManagers with the jobs' packages imported."""

from __future__ import annotations

import importlib
from typing import Any

from pyflink.common.typeinfo import Types
from pyflink.datastream import ProcessFunction, RuntimeContext

from pipelines.environment import thread_mode

#: Importing these imports torch, transformers, LightGBM and what comes with them.
MODULES = (
    "encoders.audio",
    "encoders.image",
    "encoders.text",
    "pipelines.decide",
    "pipelines.scorer",
)


class ImportPackages(ProcessFunction):
    """Imports what the operators of both jobs import; hands nothing on."""

    def open(self, runtime_context: RuntimeContext) -> None:
        """Import, in the one interpreter that a TaskManager has."""
        for name in MODULES:
            importlib.import_module(name)

    def process_element(self, value: Any, ctx: ProcessFunction.Context) -> Any:
        """Nothing."""
        return ()


def submit(nodes: int) -> None:
    """Submit the job to `nodes` TaskManagers; what fails in it shows in later jobs."""
    env = thread_mode({"restart-strategy.type": "none"})
    env.set_parallelism(nodes)
    numbers = env.from_collection([*range(nodes)], Types.INT())
    numbers.rebalance().process(ImportPackages(), Types.INT()).print()
    env.execute_async("warm-up")
