"""What a job is told: read from one JSON file, checked before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Smallest value of every whole number; Flink takes no shorter time than 10 ms.
_LEAST = {
    "nodes": 1,
    "shards": 1,
    "batch_rows": 1,
    "batch_wait_ms": 1,
    "collect_wait_ms": 1,
    "cached_vectors": 0,
    "decode_limit_s": 1,
    "decode_memory_mb": 16,
    "media_wait_ms": 0,
    "case_ttl_s": 1,
    "checkpoint_ms": 10,
}
#: Largest value of any of them: what Flink keeps in a signed 32-bit integer.
_MOST = 2**31 - 1
_BROKER = re.compile(r"[^\s,]+:\d{1,5}(,[^\s,]+:\d{1,5})*")
_ANY = re.compile(r"[^\0]+")
_PERHAPS = re.compile(r"[^\0]*")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,200}")


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
        batch_rows: encode job: payloads that are encoded without waiting for more; up
            to four times as many go into one call where they are there.
        batch_wait_ms: encode job: longest wait for a batch to fill.
        cached_vectors: encode job: vectors kept by content, per node.
        decode_limit_s: encode job: a payload that takes longer to decode is a dead
            letter.
        decode_memory_mb: encode job: what decoding may take beyond the memory of the
            idle process that does it.
        collect_wait_ms: score job: how long a JSON event waits for others to go on with
            it; up to 20 ms longer while the node is busy or events come fast.
        media_wait_ms: score job: how long media wait for their tabular event before
            they are scored without it.
        case_ttl_s: score job: how long a case is kept after its last event.
        checkpoint_ms: time between checkpoints.
        savepoint: where the state lies that the jobs start with; empty for none.
    """

    bootstrap: str
    model_folder: str
    prefix: str = ""
    nodes: int = 1
    shards: int = 8
    batch_rows: int = 16
    batch_wait_ms: int = 20
    cached_vectors: int = 4096
    decode_limit_s: int = 10
    decode_memory_mb: int = 512
    collect_wait_ms: int = 5
    media_wait_ms: int = 10_000
    case_ttl_s: int = 600
    checkpoint_ms: int = 60_000
    savepoint: str = ""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not least <= value <= _MOST:
                kind = f"a whole number from {least} to {_MOST}"
                msg = f"{name}: expected {kind}, got {value!r}"
                raise ConfigError(msg)
        self._check_text("bootstrap", _BROKER, "HOST:PORT of the broker")
        self._check_text("prefix", _PREFIX, "up to 200 of A-Z, a-z, 0-9, '.', '_', '-'")
        self._check_text("model_folder", _ANY, "the folder of a model version")
        self._check_text("savepoint", _PERHAPS, "the path of a savepoint, or nothing")
        if self.nodes > self.shards:
            msg = f"nodes: {self.nodes} is more than the {self.shards} shards"
            raise ConfigError(msg)
        if self.case_ttl_s * 1000 <= self.media_wait_ms:
            msg = (
                f"case_ttl_s: {self.case_ttl_s} s is not longer than media_wait_ms, "
                f"{self.media_wait_ms} ms: cases would be forgotten while media wait"
            )
            raise ConfigError(msg)
        if not (Path(self.model_folder) / "manifest.json").is_file():
            msg = (
                f"model_folder: {self.model_folder} holds no manifest.json; "
                "train a model first: sluice train ARCHIVE --task T --name M"
            )
            raise ConfigError(msg)

    def _check_text(self, name: str, form: re.Pattern[str], expected: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, str) or not form.fullmatch(value):
            msg = f"{name}: expected {expected}, got {value!r}"
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
        """Settings from a JSON file.

        Raises:
            ConfigError: no such file, no JSON, or a setting is unknown or wrong.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return cls.from_dict(found)
            problem = f"expected one JSON object, got {str(found)[:60]!r}"
            raise ConfigError(problem)
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            msg = f"read settings {path}: {error}"
            raise ConfigError(msg) from error

    def to_json(self) -> str:
        """The settings as `read` takes them."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def topic(self, name: str) -> str:
        """Full name of a topic of this run."""
        return self.prefix + name
