"""Payloads to vectors, batch by batch, each content once while it is remembered."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders.base import Encoder, EncoderError
from encoders.decoding import DECODERS
from pipelines.decode_child import DECODER, Refused, outcome
from pipelines.operators.decode_apart import DecoderProcess

#: Text, bytes, or float64 (F,).
Payload = Any
Vector = NDArray[np.float32]
V = TypeVar("V")
#: Batches in one call where so many wait. In calls of 64 a picture costs a fifth less
#: than in calls of 16, a text a seventh and a clip a tenth (decision 0008); half of 256
#: rows is not 128 to the row, and still goes in two calls.
CALL_BATCHES = 5
#: Payloads kept in mind that their decoder did not survive.
KEPT_CULPRITS = 1024


class PayloadVectors:
    """The encoders of a model, and the vectors they made last.

    While some are encoded, the next ones are decoded in the process apart. A payload
    that its decoder did not survive is refused at once when it comes again.

    Args:
        encoders: by modality.
        process: decodes what is of `DECODERS`; the rest is decoded here.
        batch_rows: payloads worth a call; it takes up to `CALL_BATCHES` times as many
            where they are there.
        cached: vectors remembered.

    Attributes:
        seen: payloads asked for.
        repeats: of them, those whose outcome was known already.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        process: DecoderProcess | None,
        *,
        batch_rows: int,
        cached: int,
    ) -> None:
        self.encoders = dict(encoders)
        self._process = process
        self._batch_rows = batch_rows
        self._vectors = Recent[Vector](cached)
        self._culprits = Recent[Refused](KEPT_CULPRITS)
        self.seen = self.repeats = 0

    def of(self, modality: str, payloads: Sequence[Payload]) -> list[Vector | Refused]:
        """A vector of unit length or a reason to refuse it, for each payload."""
        digests = [digest_of(modality, payload) for payload in payloads]
        found: dict[bytes, Vector | Refused] = {}
        fresh: dict[bytes, Payload] = {}
        for digest, payload in zip(digests, payloads, strict=True):
            if digest in found or digest in fresh:
                continue
            known = self._vectors.get(digest)
            end = self._culprits.get(digest) if known is None else known
            if end is None:
                fresh[digest] = payload
            else:
                found[digest] = end
        self.seen += len(payloads)
        self.repeats += len(payloads) - len(fresh)
        found |= self._made(modality, fresh)
        return [found[digest] for digest in digests]

    def _made(
        self, modality: str, fresh: Mapping[bytes, Payload]
    ) -> dict[bytes, Vector | Refused]:
        encoder, names = self.encoders[modality], iter(fresh)
        found: dict[bytes, Vector | Refused] = {}
        for outcomes in self._decoded(modality, [*fresh.values()]):
            good = [x for x in outcomes if not isinstance(x, Refused)]
            whole = len(good) == len(outcomes)  # one array of them stays one
            vectors = iter(_encode(encoder, outcomes if whole else good))
            for one in outcomes:
                name = next(names)
                made = one if isinstance(one, Refused) else next(vectors)
                found[name] = made
                if not isinstance(made, Refused):
                    self._vectors.put(name, made)
                elif made.kind == DECODER:
                    self._culprits.put(name, made)
        return found

    def _decoded(
        self, modality: str, payloads: Sequence[Payload]
    ) -> Iterator[Sequence[Any]]:
        """What decoding gives, a call at a time; calls are of one size, or nearly."""
        if not payloads:
            return
        calls = -(-len(payloads) // (CALL_BATCHES * self._batch_rows))
        bounds = [len(payloads) * call // calls for call in range(calls + 1)]
        parts = [payloads[start:stop] for start, stop in pairwise(bounds)]
        process = self._process
        if process is None or modality not in DECODERS:
            decode = self.encoders[modality].decode
            for part in parts:
                yield [outcome(decode, payload) for payload in part]
            return
        process.begin(modality, parts[0])
        for following in [*parts[1:], None]:
            outcomes = process.finish()
            if following is not None:
                process.begin(modality, following)
            yield outcomes


def _encode(encoder: Encoder, decoded: Sequence[Any]) -> Sequence[Vector | Refused]:
    """A vector each; when the encoder refuses the batch, each by itself."""
    try:
        return list(encoder.encode(decoded))
    except EncoderError as error:
        if len(decoded) == 1:
            return [Refused("unreadable", str(error))]
        return [_encode(encoder, [one])[0] for one in decoded]


def digest_of(modality: str, payload: Payload) -> bytes:
    """Name of a payload by its modality and its content."""
    raw: Any = payload.encode() if isinstance(payload, str) else payload
    return hashlib.blake2b(raw, digest_size=16, key=modality.encode()).digest()


class Recent(Generic[V]):
    """What was put or asked for last, by name.

    Args:
        size: of them; the one unused longest goes first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[bytes, V] = OrderedDict()

    def get(self, name: bytes) -> V | None:
        """What was put under a name, or None when it is not kept."""
        found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
        return found

    def put(self, name: bytes, one: V) -> None:
        """Keep it, and let the oldest go when there are too many."""
        self._kept[name] = one
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
