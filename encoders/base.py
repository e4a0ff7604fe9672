"""What every encoder promises: decode one payload, encode many, know its fingerprint.

Errors of this room::

    EncoderError
    ├── PayloadError       one payload is unreadable; skip that payload
    │   └── LimitError     it could be read, but is over a limit; skip it, too
    └── EncoderLoadError   an encoder cannot be built or loaded; nothing can be encoded

Legend: `B` batch, `D` shared width. Nothing in this file loads torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

#: The order of modalities wherever columns stand for them.
MODALITIES = ("tabular", "text", "image", "audio")
#: Rows shorter than this have no direction; see `unit_rows`.
SHORTEST_ROW = 1e-12


class EncoderError(Exception):
    """Anything that goes wrong in this room."""


class PayloadError(EncoderError):
    """One payload is unreadable or out of limits; the message is the reason."""


class LimitError(PayloadError):
    """One payload is larger than the settings allow; the message names the limit."""


class EncoderLoadError(EncoderError):
    """An encoder cannot be built or loaded as asked; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """What every encoder can be told.

    Attributes:
        width: length of the vectors, the same for all encoders of one model.
        seed: chooses the initial weights.
    """

    width: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1:
            msg = f"read encoder config: width is {self.width}, must be at least 1"
            raise EncoderLoadError(msg)


class Encoder(ABC):
    """Payloads of one modality in, vectors of unit length out.

    Attributes:
        modality: which modality's payloads it reads.
        config_class: the dataclass its options are read into.
        width: D, the length of its vectors.
        fingerprint: 16 hex digits that change with any weight or setting that can
            change a vector. Vectors of different fingerprints must not be compared.
    """

    modality: ClassVar[str]
    config_class: ClassVar[type[EncoderConfig]]
    width: int
    fingerprint: str

    @abstractmethod
    def decode(self, payload: Any) -> Any:
        """One payload made ready for `encode`, its limits checked first.

        Raises:
            PayloadError: unreadable or out of limits. Never raises anything else.
        """

    @abstractmethod
    def encode(self, decoded: Sequence[Any]) -> NDArray[np.float32]:
        """Vectors of what `decode` returned; the same whatever else is in the batch.

        Returns: float32 (B, D), rows of unit length; (0, D) for an empty sequence.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write `config.json` and `weights.safetensors` into the folder."""


def unit_rows(x_BD: NDArray[Any]) -> NDArray[np.float32]:
    """The rows scaled to length 1; a row without direction becomes the first axis.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [1.0, 0.0]]
    """
    x = np.asarray(x_BD, dtype=np.float64)
    if not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1)).tolist()[:5]
        msg = f"scale vectors to unit length: rows {bad} hold NaN or infinity"
        raise EncoderError(msg)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    lost = length[:, 0] < SHORTEST_ROW
    unit = x / np.where(length < SHORTEST_ROW, 1.0, length)
    unit[lost] = 0.0
    unit[lost, :1] = 1.0
    return unit.astype(np.float32)


def fingerprint_of(weights: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 over every tensor and every setting, by name.

    Args:
        weights: a state dict of torch CPU tensors or numpy arrays.
        settings: JSON values that change a vector (limits, sizes, backbone hash).
    """
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def settings_of(config: EncoderConfig, *, added: Sequence[str]) -> dict[str, Any]:
    """The options as JSON values, for a fingerprint.

    Args:
        config: of an encoder.
        added: options that older encoders did not have; with their default they are
            left out, so that those keep their fingerprint.
    """
    plain = {field.name: field.default for field in dataclasses.fields(config)}
    options = dataclasses.asdict(config)
    return {k: v for k, v in options.items() if k not in added or v != plain[k]}


C = TypeVar("C", bound=EncoderConfig)


def read_config(config_class: type[C], options: Mapping[str, Any], where: str) -> C:
    """The options as a config object; an unknown key is refused by name.

    Args:
        config_class: the dataclass to fill.
        options: keys and JSON values, for instance from a task file.
        where: how an error message names the place, such as `modalities.image`.

    Raises:
        EncoderLoadError: unknown key, or a value of the wrong type.
    """
    known = {field.name: field for field in dataclasses.fields(config_class)}
    for key, value in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            msg = f"read {where}: unknown key '{key}'; did you mean '{near[0]}'?"
            raise EncoderLoadError(msg)
        default = known[key].default
        wanted = int if default is dataclasses.MISSING else type(default)
        wanted = list if wanted is tuple else wanted  # as JSON has it
        fits = isinstance(value, wanted) or (wanted is float and type(value) is int)
        if not fits or (wanted is not bool and isinstance(value, bool)):
            msg = f"read {where}: '{key}' is {value!r}, must be {wanted.__name__}"
            raise EncoderLoadError(msg)
    missing = [
        name
        for name, field in known.items()
        if field.default is dataclasses.MISSING and name not in options
    ]
    if missing:
        msg = f"read {where}: '{missing[0]}' is missing"
        raise EncoderLoadError(msg)
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in options.items()
    }
    return config_class(**given)


def payload_bytes(payload: Any, max_bytes: int) -> bytes:
    """The payload as bytes, when it is bytes at all and neither empty nor too long.

    Raises:
        PayloadError: not bytes, or empty.
        LimitError: more than `max_bytes`.
    """
    if not isinstance(payload, bytes | bytearray | memoryview):
        msg = f"payload is {type(payload).__name__}, must be bytes"
        raise PayloadError(msg)
    size = memoryview(payload).nbytes
    if size == 0:
        msg = "payload is empty"
        raise PayloadError(msg)
    if size > max_bytes:
        msg = f"payload has {size} bytes, the limit is {max_bytes}"
        raise LimitError(msg)
    return bytes(payload)
