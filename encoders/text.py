"""Text to vectors: a transformer's mean states, n-grams beside them, and one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from encoders.backbone_files import DEFAULT_MODEL, find_backbone, hash_backbone
from encoders.base import (
    EncoderConfig,
    EncoderLoadError,
    LimitError,
    PayloadError,
    fingerprint_of,
)
from encoders.trainable import TrainableEncoder

if TYPE_CHECKING:
    import torch
    from torch import nn

    from encoders.text_network import TextNetwork

#: Settings that only say where things are found; a vector does not depend on them.
PLACES = ("model", "download")
SERVES = ("auto", "torch", "float32", "bfloat16", "int8")
TUNES = ("none", "adapter", "full")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig(EncoderConfig):
    """Options of the text encoder.

    Attributes:
        model: a local folder or a Hugging Face name; safetensors weights only.
        download: whether a name that is not on this machine may be fetched.
        max_chars: longer texts are refused.
        max_tokens: tokens past this are not read.
        ngrams: whether words and character n-grams are read beside the transformer.
        tune: what of the transformer learns in a training. "none": nothing, its states
            are computed once; "adapter": low-rank weights beside it, saved apart and
            exchanged by `swap_adapter`; "full": all of it, saved with the encoder.
        rank: of the adapter's weights.
        serve: how the transformer is computed: "torch" as it is, or without padding as
            "float32", "bfloat16" or "int8"; "auto" is "torch" until `choose_form`.
    """

    model: str = DEFAULT_MODEL
    download: bool = True
    max_chars: int = 10_000
    max_tokens: int = 128
    ngrams: bool = True
    tune: str = "none"
    rank: int = 8
    serve: str = "auto"

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        if self.tune not in TUNES:
            msg = f"read text config: tune is {self.tune!r}, must be one of {TUNES}"
            raise EncoderLoadError(msg)
        if self.serve not in SERVES:
            msg = f"read text config: serve is {self.serve!r}, must be one of {SERVES}"
            raise EncoderLoadError(msg)
        if self.rank < 1:
            msg = f"read text config: rank is {self.rank}, must be at least 1"
            raise EncoderLoadError(msg)


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
        folder = find_backbone(self.config.model, download=self.config.download)
        self.backbone_sha256 = hash_backbone(folder)
        self._backbone = Backbone(
            folder, max_tokens=self.config.max_tokens, form=self._form()
        )
        self.network = seeded(
            lambda: TextNetwork(
                self._backbone,
                width=self.width,
                ngrams=self.config.ngrams,
                tune=self.config.tune,
                rank=self.config.rank,
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
        """Mean states or token ids, then n-grams: float32 (B, R) or (B, R + 2S)."""
        import torch

        if self.config.tune == "none":
            first = self._backbone.pooled(decoded)
        else:
            first = self._backbone.tokens(decoded).float()
        if not self.config.ngrams:
            return first
        from encoders.ngrams import count_grams
        from encoders.text_network import BUCKETS

        grams = torch.from_numpy(count_grams(decoded, BUCKETS).rows())
        return torch.cat([first, grams], dim=1)

    def fit_items(self, decoded: Sequence[str] | torch.Tensor) -> None:
        """Settle rarity, spread and directions on these texts, without labels; seal.

        Fewer than 32 texts change nothing.

        Args:
            decoded: distinct texts, or what `prepare` made of them.
        """
        from encoders.text_start import settle

        settle(self.network, self.prepare_all(decoded), seed=self.config.seed)
        self.seal()

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """See `TextNetwork.rates`."""
        return self.network.rates()

    def augment(
        self, prepared: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """A tenth of the states and of the n-grams left out; token ids stay."""
        import torch

        def thin(part: torch.Tensor) -> torch.Tensor:
            return part * (torch.rand(part.shape, generator=generator) >= 0.1) / 0.9

        first, bucket, amount = self.network.split(prepared)
        first = thin(first) if self.config.tune == "none" else first
        return torch.cat([first, bucket, thin(amount)], dim=1)

    def save(self, folder: Path) -> None:
        """See `Encoder.save`; an adapter is also written apart, for `swap_adapter`."""
        super().save(folder)
        if self.config.tune == "adapter":
            from encoders.adapter import write_adapter

            write_adapter(self.network, self._base(), folder)

    def swap_adapter(self, folder: Path) -> None:
        """Take over the adapter saved in this folder; the transformer stays loaded.

        The fingerprint follows: vectors of two adapters must not be compared.

        Raises:
            EncoderLoadError: no adapter is there, or it belongs beside another
                transformer, other settings or other n-grams; nothing is changed.
        """
        from encoders.adapter import read_adapter

        weights = read_adapter(self.network, self._base(), folder)
        self.restore(weights, str(folder))

    def choose_form(self, texts: Sequence[str]) -> dict[str, Any]:
        """Serve in the fastest form that keeps the vectors, by measurement here.

        Call it after the last training, with some hundred texts: the fingerprint
        follows the form.

        Returns: the form, and speed and loss of each form; kept with the encoder.
        """
        from encoders.serving import choose_form

        self.serving = choose_form(self, texts)
        return self.serving

    def serve(self, form: str) -> None:
        """Compute the transformer in this form from now on, and renew the fingerprint.

        Raises:
            EncoderLoadError: this type of model has no such form.
        """
        self._backbone.serve(form)
        self.config = dataclasses.replace(self.config, serve=form)
        self.seal()

    def _form(self) -> str:
        return "torch" if self.config.serve == "auto" else self.config.serve

    def _base(self) -> str:
        """Names all that adapters have in common: settings and n-grams."""
        state = self.network.state_dict()
        grams = {k: v for k, v in state.items() if k.startswith("grams.")}
        return fingerprint_of(grams, self.settings())

    def settings(self) -> dict[str, Any]:
        """The config without places, and the backbone by its hash."""
        options = dataclasses.asdict(self.config)
        kept = {k: v for k, v in options.items() if k not in PLACES}
        backbone = {
            "name": Path(self.config.model).name,
            "sha256": self.backbone_sha256,
        }
        return {**kept, "serve": self._form(), "backbone": backbone, "preparation": 2}


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
