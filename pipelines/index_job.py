"""Path 3, write side: topic `vectors` into the index, served over loopback HTTP."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from connectors.kafka import Reader
from connectors.records import Place
from connectors.vector_index import (
    SPACES,
    FingerprintError,
    Offsets,
    SnapshotError,
    VectorIndex,
)
from encoders.base import Encoder
from encoders.store import load_encoder
from pipelines.index_writer import IndexWriter, warm_up
from pipelines.retrieve import ADDRESS_FILE, NoIndexService, Retriever, start_server
from pipelines.retrieve import stats as ask_stats

logger = logging.getLogger(__name__)

#: What one poll of the topic gives; empty when nothing came in time.
Messages = Sequence[tuple[Place, bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """How an index service runs.

    Attributes:
        home: the folder for its address (`index.json`) and snapshots (`index/`).
        bootstrap: the Kafka brokers.
        topic: the topic of vectors frames.
        model_folder: the model version whose vectors are indexed.
        snapshot_s: seconds between snapshots.
        wait_ms: how long a poll waits; bounds how late a stop is noticed.
        owner_pid: the process to end with, or None.
    """

    home: Path
    bootstrap: str
    topic: str
    model_folder: Path
    snapshot_s: float = 30.0
    wait_ms: int = 100
    owner_pid: int | None = None


class IndexService:
    """Reads vectors, answers queries and keeps snapshots until told to stop."""

    def __init__(
        self,
        config: IndexConfig,
        *,
        read: Callable[[Offsets, threading.Event], Iterable[Messages]],
        load_encoder: Callable[[str], Encoder],
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._read = read
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._snapshots = config.home / "index"
        self._writing: Future[None] | None = None
        self.index, self._offsets = open_index(config.model_folder, self._snapshots)
        self._writer = IndexWriter(self.index, now_ms=now_ms)
        self._retriever = Retriever(self.index, load_encoder)

    def stop(self) -> None:
        """Ask `run` to take a last snapshot and return."""
        self._stop.set()

    def run(self) -> int:
        """Serve until stopped; returns the exit code."""
        is_alive = _owner_watch(self._config.owner_pid)
        warm_up(self.index.width)
        server = start_server(self._retriever, self._stats)
        address = self._config.home / ADDRESS_FILE
        port = server.server_address[1]
        about = {"url": f"http://127.0.0.1:{port}", "port": port, "pid": os.getpid()}
        _write_json(address, {**about, "topic": self._config.topic})
        logger.info("index of %s at %s", self._config.topic, about["url"])
        reader = threading.Thread(target=self._follow, daemon=True)
        reader.start()
        try:
            while not self._stop.wait(0.5):
                if not is_alive():
                    logger.info("the owner process ended; stopping")
                    self._stop.set()
            reader.join(timeout=10)
        finally:
            address.unlink(missing_ok=True)
            server.shutdown()
            server.server_close()
        return 1 if self._failure else 0

    def _follow(self) -> None:
        try:
            with ThreadPoolExecutor(max_workers=1) as pool:
                self._apply_all(pool)
                if self._writing:
                    wait([self._writing])
                self.index.snapshot(self._snapshots, self._offsets)
        except BaseException as error:
            self._failure = error
            logger.exception("index %s: stopped", self._config.topic)
        finally:
            self._stop.set()

    def _apply_all(self, pool: ThreadPoolExecutor) -> None:
        due, is_dirty = time.monotonic() + self._config.snapshot_s, False
        for messages in self._read(dict(self._offsets), self._stop):
            for place, value in messages:
                self._writer.apply(place, value)
                self._offsets[place.topic, place.partition] = place.offset + 1
                is_dirty = True
            if time.monotonic() >= due:
                due = time.monotonic() + self._config.snapshot_s
                if is_dirty:
                    is_dirty = not self._begin_snapshot(pool)

    def _begin_snapshot(self, pool: ThreadPoolExecutor) -> bool:
        """Copy the index here, write it beside the reading; False if still busy."""
        if self._writing:
            if not self._writing.done():
                return False
            if error := self._writing.exception():
                logger.error("write a snapshot to %s: %s", self._snapshots, error)
        frozen = self.index.freeze(self._offsets)
        self._writing = pool.submit(frozen.write, self._snapshots)
        return True

    def _stats(self) -> dict[str, Any]:
        offsets = {f"{t}[{p}]": at for (t, p), at in sorted(self._offsets.items())}
        return {**self._writer.stats(), "offsets": offsets}


def open_index(model_folder: Path, snapshots: Path) -> tuple[VectorIndex, Offsets]:
    """The index for a model version, from its snapshot where there is a fitting one."""
    manifest = json.loads((model_folder / "manifest.json").read_text())
    fingerprints = {
        name: fingerprint
        for name, fingerprint in manifest.get("fingerprints", {}).items()
        if name in SPACES
    }
    index = VectorIndex(manifest["width"], fingerprints)
    try:
        return index, index.restore(snapshots)
    except (FingerprintError, SnapshotError) as error:
        logger.warning("%s; reading the topic from its start instead", error)
        return index, {}


def read_kafka(
    bootstrap: str,
    topic: str,
    offsets: Offsets,
    stop: threading.Event,
    *,
    wait_ms: int = 100,
) -> Iterator[Messages]:
    """Poll a topic from offsets (its start where none is known) until stopped."""
    with Reader(bootstrap, [topic], start=offsets) as reader:
        while not stop.is_set():
            yield [(v.place, v.value or b"") for v in reader.poll(wait_ms)]


def _owner_watch(pid: int | None) -> Callable[[], bool]:
    """Tells whether the owner still runs; a later process of that pid is not it."""
    if pid is None:
        return lambda: True
    try:
        owner = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return lambda: False

    def is_alive() -> bool:
        try:
            return owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return is_alive


def _write_json(path: Path, body: Mapping[str, Any]) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(body))
    new.replace(path)


def _is_running(home: Path) -> bool:
    try:
        ask_stats(home)
    except NoIndexService:
        return False
    return True


def _config_from(argv: Sequence[str] | None) -> IndexConfig:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT,...")
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--topic", default="vectors")
    parser.add_argument("--snapshot-s", type=float, default=30.0)
    parser.add_argument("--owner-pid", type=int, help="end when this process does")
    return IndexConfig(**vars(parser.parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the index service of a home folder until SIGTERM; returns the exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level="INFO")
    logging.getLogger("kafka").setLevel("ERROR")
    config = _config_from(argv)
    if _is_running(config.home):
        logger.error("an index service of %s is already running", config.home)
        return 1
    config.home.mkdir(parents=True, exist_ok=True)

    def read(offsets: Offsets, stop: threading.Event) -> Iterator[Messages]:
        return read_kafka(
            config.bootstrap, config.topic, offsets, stop, wait_ms=config.wait_ms
        )

    service = IndexService(
        config,
        read=read,
        load_encoder=lambda name: load_encoder(config.model_folder / "encoders" / name),
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    return service.run()


if __name__ == "__main__":
    sys.exit(main())
