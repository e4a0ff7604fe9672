"""A query: what to look for, checked, and the JSON it travels as.

Its errors belong to the tree drawn in `retrieve.py`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

#: `modality` of a query that looks in every space.
ALL = "all"

MAX_K = 1000

_KINDS = ("text", "image_b64", "audio_b64", "case", "vector")


class RetrieveError(Exception):
    """A search that gave no answer."""


class QueryError(RetrieveError):
    """A query that cannot be answered as asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What to look for: exactly one of text, image, audio, case or vector.

    Attributes:
        by: `text`, `image`, `audio`, `case` or `vector`.
        content: str for text and case, bytes for media, list of float for vector.
        modality: the space to look in, `all`, or None for the natural one.
        k: how many hits at most, 1..1000.
    """

    by: str
    content: Any
    modality: str | None = None
    k: int = 10

    @classmethod
    def from_json(cls, body: object) -> Query:
        """Read a request body; says what is wrong with a bad one."""
        if not isinstance(body, dict):
            msg = "read the query: the body is not a JSON object"
            raise QueryError(msg)
        unknown = sorted(set(body) - {*_KINDS, "modality", "k"})
        given = [kind for kind in _KINDS if body.get(kind) is not None]
        if unknown or len(given) != 1:
            msg = f"read the query: give exactly one of {', '.join(_KINDS)}"
            if unknown:
                msg += f"; not known: {', '.join(unknown)}"
            raise QueryError(msg)
        k, modality = body.get("k", 10), body.get("modality")
        if type(k) is not int or not 1 <= k <= MAX_K:
            msg = f"read the query: k must be a whole number from 1 to {MAX_K}, not {k}"
            raise QueryError(msg)
        if modality is not None and not isinstance(modality, str):
            msg = f"read the query: modality must be a string, not {modality!r}"
            raise QueryError(msg)
        content = _content_of(given[0], body[given[0]])
        by = given[0].removesuffix("_b64")
        return cls(by=by, content=content, modality=modality, k=k)

    def to_json(self) -> dict[str, Any]:
        """The request body that `from_json` reads back."""
        media = self.by in ("image", "audio")
        content = base64.b64encode(self.content).decode() if media else self.content
        name = f"{self.by}_b64" if media else self.by
        return {name: content, "modality": self.modality, "k": self.k}


def _content_of(kind: str, value: object) -> Any:
    if kind == "vector":
        return _numbers_of(value)
    if not isinstance(value, str) or not value.strip():
        msg = f"read the query: {kind} must be a string that is not empty"
        raise QueryError(msg)
    if not kind.endswith("_b64"):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        msg = f"read the query: {kind} is not base64: {error}"
        raise QueryError(msg) from error


def _numbers_of(value: object) -> list[float]:
    try:
        if isinstance(value, list) and all(type(x) in (int, float) for x in value):
            return [float(x) for x in value]
    except OverflowError:
        pass  # a whole number too large for any float is refused like other non-numbers
    msg = "read the query: vector must be a list of numbers"
    raise QueryError(msg)
