"""What a job is told: read from one JSON file, checked before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ConfigError(Exception):
    """A setting is unknown or wrong: the message names it and the nearest known one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobConfig:
    """Settings of the encode and the score job.

    Attributes:
        bootstrap: HOST:PORT of the broker.
        model_folder: folder of the model version to start with.
        prefix: put before every topic name; keeps runs apart.
        nodes: parallelism, one TaskManager slot each.
        shards: keyed state is split in this many parts; it bounds `nodes`.
        batch_rows: encode job: payloads encoded in one call.
        batch_wait_ms: encode job: longest wait for a batch to fill.
        cached_vectors: encode job: vectors kept by content, per node.
        media_wait_ms: score job: how long media wait for their tabular event before
            they are scored without it.
        case_ttl_s: score job: how long a case is kept after its last event.
        checkpoint_ms: time between checkpoints.
    """

    bootstrap: str
    model_folder: str
    prefix: str = ""
    nodes: int = 1
    shards: int = 16
    batch_rows: int = 16
    batch_wait_ms: int = 20
    cached_vectors: int = 4096
    media_wait_ms: int = 10_000
    case_ttl_s: int = 3600
    checkpoint_ms: int = 2000

    def __post_init__(self) -> None:
        for name in ("nodes", "shards", "batch_rows", "checkpoint_ms"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                msg = f"{name}: expected a whole number above 0, got {value!r}"
                raise ConfigError(msg)
        if self.nodes > self.shards:
            msg = f"nodes: {self.nodes} is more than the {self.shards} shards"
            raise ConfigError(msg)
        if not (Path(self.model_folder) / "manifest.json").is_file():
            msg = (
                f"model_folder: {self.model_folder} holds no manifest.json; "
                "train a model first: sluice train ARCHIVE --task T --name M"
            )
            raise ConfigError(msg)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> JobConfig:
        """Checked settings; unknown keys are refused.

        Raises:
            ConfigError: an unknown key or a wrong value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
                msg = f"{key}: unknown setting; the nearest known one is {near!r}"
                raise ConfigError(msg)
        try:
            return cls(**found)
        except TypeError as error:
            raise ConfigError(str(error)) from error

    @classmethod
    def read(cls, path: Path) -> JobConfig:
        """Settings from a JSON file."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write the settings for `read`."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        path.write_text(text + "\n", encoding="utf-8")

    def topic(self, name: str) -> str:
        """Full name of a topic of this run."""
        return self.prefix + name
