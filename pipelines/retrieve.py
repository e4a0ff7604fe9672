"""Path 3, read side: the answer to a query from the index, and the wire between.

Errors::

    RetrieveError
    ├── NoIndexService   nothing answers for this home folder
    └── QueryError       a query that cannot be answered as asked
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.base import Encoder, PayloadError
from pipelines.query import ALL, Query, QueryError, RetrieveError

if TYPE_CHECKING:
    from connectors.vector_index import Hit, VectorIndex

__all__ = [
    "ADDRESS_FILE",
    "NoIndexService",
    "Query",
    "QueryError",
    "RetrieveError",
    "Retriever",
    "search",
    "start_server",
    "stats",
]

logger = logging.getLogger(__name__)

#: Where the running index service says how to reach it, inside a home folder.
ADDRESS_FILE = "index.json"

MAX_BODY_BYTES = 32 << 20

_LOCAL_NAMES = ("127.0.0.1", "localhost")


class NoIndexService(RetrieveError):
    """Nothing answers for this home folder."""


class Retriever:
    """Answers queries from an index, with the encoders its vectors were made by.

    Args:
        index: the vectors.
        load_encoder: gives the encoder of a modality; called once for each, when
            it is first asked for.
    """

    def __init__(
        self, index: VectorIndex, load_encoder: Callable[[str], Encoder]
    ) -> None:
        self._index = index
        self._load_encoder = load_encoder
        self._encoders: dict[str, Encoder] = {}
        self._encoding = threading.Lock()

    def answer(self, query: Query) -> dict[str, Any]:
        """Hits as plain JSON, best first, with what was searched and how long."""
        from connectors.vector_index import VectorIndexError

        started = time.perf_counter()
        try:
            probes = self._probes(query)
            encoded = time.perf_counter()
            hits = self._near(query, probes)
        except (VectorIndexError, PayloadError) as error:
            raise QueryError(str(error)) from error
        ended = time.perf_counter()
        return {
            "by": query.by,
            "modalities": [space or ALL for space, _ in probes],
            "hits": [asdict(hit) for hit in hits],
            "latency_ms": round((ended - started) * 1e3, 3),
            "encode_ms": round((encoded - started) * 1e3, 3),
        }

    def _probes(self, query: Query) -> list[tuple[str | None, Any]]:
        """Which vector to look for in which space (None: in all)."""
        if query.by == "case":
            return self._case_probes(query)
        if query.by == "vector":
            return [(_space(query.modality or ALL), query.content)]
        space = _space(query.modality or query.by)
        return [(space, self._encode(query.by, query.content))]

    def _case_probes(self, query: Query) -> list[tuple[str | None, Any]]:
        held = {
            name: vector
            for name in self._index.counts()
            if (vector := self._index.vector_of(query.content, name)) is not None
        }
        if not held:
            msg = f"search by case: case {query.content!r} has no vectors in the index"
            raise QueryError(msg)
        fused = {"fused": held["fused"]} if "fused" in held else held
        if query.modality is None:
            return list(fused.items())
        space = _space(query.modality)
        if space in held:
            return [(space, held[space])]
        return [(space, vector) for vector in fused.values()]

    def _near(self, query: Query, probes: list[tuple[str | None, Any]]) -> list[Hit]:
        own = query.content if query.by == "case" else None
        best: dict[tuple[str, str], Hit] = {}
        for space, vector in probes:
            for hit in self._index.search(vector, query.k, space, exclude_case=own):
                key = (hit.modality, hit.event_id)
                if key not in best or hit.similarity > best[key].similarity:
                    best[key] = hit
        ranked = sorted(best.values(), key=lambda hit: (-hit.similarity, hit.event_id))
        return ranked[: query.k]

    def _encode(self, modality: str, payload: str | bytes) -> Any:
        with self._encoding:
            if modality not in self._encoders:
                self._encoders[modality] = self._load_encoder(modality)
            encoder = self._encoders[modality]
            self._index.check_fingerprint(modality, encoder.fingerprint)
            return encoder.encode([encoder.decode(payload)])[0]


def _space(modality: str) -> str | None:
    return None if modality == ALL else modality


def start_server(
    retriever: Retriever, stats: Callable[[], Mapping[str, Any]]
) -> ThreadingHTTPServer:
    """Serve /health, /stats and /search on a free loopback port, in own threads."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            if not self._is_local():
                return
            if self.path == "/health":
                self._reply(200, {"status": "ok"})
            elif self.path == "/stats":
                self._reply(200, stats())
            else:
                self._refuse(404, f"no such path: {self.path}")

        def do_POST(self) -> None:
            if not self._is_local():
                return
            if self.path != "/search":
                self._refuse(404, f"no such path: {self.path}")
                return
            try:
                query = Query.from_json(self._body())
                self._reply(200, retriever.answer(query))
            except QueryError as error:
                self._refuse(400, str(error))
            except Exception as error:
                logger.exception("answer a query")
                self._refuse(500, f"answer a query: {error}")

        def _is_local(self) -> bool:
            """Refuse names a web page could have pointed at this address."""
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            if host not in _LOCAL_NAMES:
                self._refuse(403, f"this service answers on 127.0.0.1, not {host!r}")
            return host in _LOCAL_NAMES

        def _body(self) -> object:
            size = self.headers.get("Content-Length", "")
            if not size.isdecimal() or int(size) > MAX_BODY_BYTES:
                msg = f"read the query: send 1 to {MAX_BODY_BYTES} bytes of JSON"
                raise QueryError(msg)
            try:
                body: object = json.loads(self.rfile.read(int(size)))
            except (ValueError, RecursionError) as error:
                msg = f"read the query: not JSON: {error}"
                raise QueryError(msg) from error
            return body

        def _refuse(self, status: int, reason: str) -> None:
            self.close_connection = True
            self._reply(status, {"error": reason})

        def _reply(self, status: int, body: Mapping[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            logger.debug(format, *args)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server


def search(home: Path, query: Query, *, timeout_s: float = 120.0) -> dict[str, Any]:
    """Ask the index service of a home folder; see `Retriever.answer`.

    The first query of a modality also loads its encoder: seconds, or tens of them on a
    busy machine.
    """
    return _ask(home, "/search", query.to_json(), timeout_s)


def stats(home: Path, *, timeout_s: float = 5.0) -> dict[str, Any]:
    """Counts and searchable lag of the index service of a home folder."""
    return _ask(home, "/stats", None, timeout_s)


def _ask(
    home: Path, path: str, body: Mapping[str, Any] | None, timeout_s: float
) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        address = json.loads((home / ADDRESS_FILE).read_text())
        request = urllib.request.Request(
            address["url"] + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with opener.open(request, timeout=timeout_s) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        raise QueryError(_reason_of(error)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = (
            f"ask the index of {home}: no index service is running ({error}); "
            "start it with: sluice run index"
        )
        raise NoIndexService(msg) from error
    return answer


def _reason_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"the index service answered {error.code}"
