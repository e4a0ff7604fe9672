"""The frozen transformer behind the text encoder: token ids in, mean states out.

Legend: `B` batch, `T` tokens, `H` hidden width of the transformer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from encoders.base import EncoderLoadError

#: Texts that share one forward pass; sorted by length first, so padding stays small.
BATCH_ROWS = 16


class Backbone:
    """A transformer and its tokenizer, read from a folder, never changed.

    Args:
        folder: holds config.json, *.safetensors and the tokenizer's files.
        max_tokens: tokens past this (or past the model's positions) are not read.

    Attributes:
        hidden: H.
    """

    def __init__(self, folder: Path, *, max_tokens: int) -> None:
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True
            )
            self._model = AutoModel.from_pretrained(
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
        self._model.eval().requires_grad_(requires_grad=False)
        positions = getattr(self._model.config, "max_position_embeddings", max_tokens)
        self._max_tokens = min(max_tokens, positions)
        self._pad = self._tokenizer.pad_token_id or 0
        self.hidden: int = self._model.config.hidden_size
        self._tokens("ready")

    def pooled(self, texts: Sequence[str]) -> torch.Tensor:
        """The mean of the last states over the tokens of each text, float32 (B, H)."""
        tokens = [self._tokens(text) for text in texts]
        out = torch.empty((len(tokens), self.hidden))
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_ROWS):
                rows = order[start : start + BATCH_ROWS]
                out[rows] = self._forward([tokens[row] for row in rows])
        return out

    def _tokens(self, text: str) -> list[int]:
        # One text at a time: a batch would start the tokenizer's own threads.
        cut = self._tokenizer(text, truncation=True, max_length=self._max_tokens)
        ids: list[int] = cut["input_ids"]
        return ids or [self._pad]

    def _forward(self, tokens: list[list[int]]) -> torch.Tensor:
        longest = max(len(ids) for ids in tokens)
        ids_BT = torch.full((len(tokens), longest), self._pad)
        mask_BT = torch.zeros((len(tokens), longest), dtype=torch.long)
        for row, ids in enumerate(tokens):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = 1
        states = self._model(input_ids=ids_BT, attention_mask=mask_BT)
        share = mask_BT.unsqueeze(-1).float()
        mean: torch.Tensor = (states.last_hidden_state * share).sum(1) / share.sum(1)
        return mean
