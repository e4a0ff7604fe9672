"""The processes beside Flink: index and retrain, as command lines."""

from __future__ import annotations

import sys
from pathlib import Path

from automl.registry import ModelVersion

SERVICES = ("index", "retrain")


def service_command(
    name: str, home: Path, bootstrap: str, version: ModelVersion, *, prefix: str = ""
) -> list[str]:
    """The command line of a service that works for one model.

    Args:
        name: `index` or `retrain`.
        home: where the index keeps its snapshots and says its address.
        bootstrap: HOST:PORT of the broker.
        version: the model whose vectors are indexed, or which is kept fresh.
        prefix: topic prefix of the run.
    """
    start = [sys.executable, "-m", f"pipelines.{name}_job", "--bootstrap", bootstrap]
    if name == "index":
        own = ["--home", str(home.resolve())]
        own += ["--model-folder", str(version.folder.resolve())]
        own += ["--topic", f"{prefix}vectors"]
    else:
        registry = version.folder.resolve().parent.parent
        own = ["--registry", str(registry), "--name", version.name]
        own += ["--prefix", prefix]
    return [*start, *own]
