"""A transformer read from a folder: texts to token ids, token ids to mean states.

Legend: `B` batch, `T` tokens, `H` hidden width of the transformer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from encoders.base import EncoderLoadError
from encoders.packed import Packed, can_pack

#: Texts that share one forward pass; sorted by length first, so padding stays small.
BATCH_ROWS = 16
#: Stands where a text has no more tokens.
NO_TOKEN = -1


class Backbone:
    """A transformer and its tokenizer.

    Args:
        folder: holds config.json, *.safetensors and the tokenizer's files.
        max_tokens: tokens past this (or past the model's positions) are not read.
        form: how states are computed where nothing learns; "torch" is the model as it
            is, the others are `encoders.packed.FORMS`.

    Attributes:
        model: takes `input_ids` and `attention_mask`, gives `last_hidden_state`.
        hidden: H.
        max_tokens: T at most.
    """

    def __init__(self, folder: Path, *, max_tokens: int, form: str) -> None:
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True
            )
            self.model: nn.Module = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
            )
        except Exception as error:  # tokenizers and safetensors have no common error
            msg = f"load text model '{folder}': {error}"
            raise EncoderLoadError(msg) from error
        finally:
            if bars:
                logging.enable_progress_bar()
        self.model.eval().requires_grad_(requires_grad=False)
        self.hidden: int = self.model.config.hidden_size
        self.max_tokens = min(max_tokens, _positions(self.model, max_tokens))
        self._pad: int = self._tokenizer.pad_token_id or 0
        self._ids("ready")
        self.serve(form)

    def serve(self, form: str) -> None:
        """Take another form from now on.

        Raises:
            EncoderLoadError: this type of model has no such form.
        """
        if form != "torch" and not can_pack(self.model):
            kind = getattr(self.model.config, "model_type", "unknown")
            msg = f"serve text model as {form}: only as torch, its type is '{kind}'"
            raise EncoderLoadError(msg)
        self.form = form
        self.renew()

    def renew(self) -> None:
        """Forget what was made of the weights for serving: they have changed."""
        self._packed: Packed | None = None

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids, int64 (B, T), `NO_TOKEN` after the last of a text."""
        found = [self._ids(text) for text in texts]
        ids_BT = torch.full((len(found), self.max_tokens), NO_TOKEN)
        for row, ids in enumerate(found):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
        return ids_BT

    def states(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """The mean of the last states over the tokens of each row, float32 (B, H)."""
        if not len(ids_BT):
            return torch.empty((0, self.hidden))
        length = (ids_BT != NO_TOKEN).sum(dim=1)
        if self.form != "torch" and not torch.is_grad_enabled():
            self._packed = self._packed or Packed(self.model, self.form)
            rows = zip(ids_BT, length.tolist(), strict=True)
            return self._packed([ids[:count] for ids, count in rows])
        if torch.is_grad_enabled() or len(ids_BT) <= BATCH_ROWS:
            return self._forward(ids_BT, length)
        out = torch.empty((len(ids_BT), self.hidden), device=ids_BT.device)
        for rows in length.argsort(stable=True).split(BATCH_ROWS):
            out[rows] = self._forward(ids_BT[rows], length[rows])
        return out

    def pooled(self, texts: Sequence[str]) -> torch.Tensor:
        """`states` of texts, without gradients."""
        with torch.inference_mode():
            return self.states(self.tokens(texts))

    def _ids(self, text: str) -> list[int]:
        # One text at a time: a batch would start the tokenizer's own threads.
        cut = self._tokenizer(text, truncation=True, max_length=self.max_tokens)
        ids: list[int] = cut["input_ids"]
        return ids or [self._pad]

    def _forward(self, ids_BT: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        longest = int(length.max())
        ids_BT = ids_BT[:, :longest]
        mask_BT = ids_BT != NO_TOKEN
        known_BT = ids_BT.where(mask_BT, torch.tensor(self._pad))
        read = self.model(input_ids=known_BT, attention_mask=mask_BT.long())
        share = mask_BT.unsqueeze(-1).float()
        total: torch.Tensor = (read.last_hidden_state * share).sum(dim=1)
        return total / share.sum(dim=1)


def _positions(model: Any, at_most: int) -> int:
    """Tokens the model has places for; some count places from after the padding's."""
    places: int = getattr(model.config, "max_position_embeddings", at_most)
    inner = getattr(model, "embeddings", None)
    table = getattr(inner, "position_embeddings", None)
    skipped = getattr(table, "padding_idx", None)
    return places if skipped is None else places - skipped - 1
