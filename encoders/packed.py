"""A BERT-type transformer read without padding, in float32, bfloat16 or INT8.

All tokens of a batch lie one after the other, so every linear map is one product over
all of them and nothing is computed for padding; only attention looks at one text (or
several of one length) at a time. Products always have the same count of rows and INT8
is scaled row by row, so a text's states do not depend on its neighbours, to the bit.

Legend: `N` tokens of all texts, `B` texts, `T` tokens of a text, `H` hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from encoders.adapter import merged_weight

#: Rows of every product; the last ones are filled up with zeros.
BLOCK_ROWS = 128
FORMS = ("float32", "bfloat16", "int8")
#: Model types whose layers are built like BERT's.
READABLE = ("bert", "roberta")


class Product:
    """`x W' + b` over blocks of rows, in float32 or bfloat16."""

    def __init__(self, parts: list[Any], dtype: torch.dtype) -> None:
        weight = torch.cat([merged_weight(part) for part in parts])
        self._weight = weight.to(dtype).t()
        self._bias = torch.cat([part.bias.detach() for part in parts]).to(dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs) to (N, outputs); N is a multiple of `BLOCK_ROWS`."""
        out = x.new_empty((len(x), len(self._bias)))
        blocks = zip(x.split(BLOCK_ROWS), out.split(BLOCK_ROWS), strict=True)
        for rows, into in blocks:
            torch.addmm(self._bias, rows, self._weight, out=into)
        return out


class Int8Product:
    """The same with weights and rows rounded to 255 steps; sums are whole numbers."""

    def __init__(self, parts: list[Any], dtype: torch.dtype) -> None:
        weight = torch.cat([merged_weight(part) for part in parts])
        self._step = weight.abs().amax(dim=1).clamp_min(1e-12) / 127
        steps = (weight / self._step[:, None]).round()
        self._weight = steps.to(torch.int8).t()
        self._bias = torch.cat([part.bias.detach() for part in parts])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs) to (N, outputs)."""
        step = x.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        whole = torch._int_mm((x / step).round_().to(torch.int8), self._weight)
        return torch.addcmul(self._bias, whole * step, self._step)


class Layer:
    """One block of attention and one of two linear maps, over packed tokens."""

    def __init__(self, layer: Any, dtype: torch.dtype, product: Callable[..., Any]):
        attention = layer.attention
        own = attention.self
        self._heads: int = own.num_attention_heads
        self._ask = product([own.query, own.key, own.value], dtype)
        self._gather = product([attention.output.dense], dtype)
        self._widen = product([layer.intermediate.dense], dtype)
        self._narrow = product([layer.output.dense], dtype)
        self._act = layer.intermediate.intermediate_act_fn
        self._norms = [
            (part.weight.detach().to(dtype), part.bias.detach().to(dtype), part.eps)
            for part in (attention.output.LayerNorm, layer.output.LayerNorm)
        ]

    def __call__(self, x_NH: torch.Tensor, runs: list[tuple[int, int]]) -> torch.Tensor:
        """The next states; `runs` says how many texts of which length follow."""
        heard = self._attend(self._ask(x_NH), runs)
        x_NH = self._norm(0, self._gather(heard).add_(x_NH))
        wide = self._act(self._widen(x_NH))
        return self._norm(1, self._narrow(wide).add_(x_NH))

    def _norm(self, which: int, x_NH: torch.Tensor) -> torch.Tensor:
        weight, bias, eps = self._norms[which]
        return functional.layer_norm(x_NH, weight.shape, weight, bias, eps)

    def _attend(self, asked: torch.Tensor, runs: list[tuple[int, int]]) -> torch.Tensor:
        hidden = asked.shape[1] // 3
        heard = asked.new_zeros((len(asked), hidden))
        start = 0
        for texts, length in runs:
            stop = start + texts * length
            shape = (texts, length, 3, self._heads, hidden // self._heads)
            query, key, value = asked[start:stop].view(shape).permute(2, 0, 3, 1, 4)
            told = functional.scaled_dot_product_attention(query, key, value)
            heard[start:stop] = told.transpose(1, 2).reshape(stop - start, hidden)
            start = stop
        return heard


def can_pack(model: Any) -> bool:
    """Whether `Packed` reads models of this type."""
    return getattr(model.config, "model_type", None) in READABLE


class Packed:
    """The mean states of a BERT-type model, computed without padding.

    Args:
        model: as it is now, adapters included; later changes are not seen.
        form: one of `FORMS`.
    """

    def __init__(self, model: Any, form: str) -> None:
        self._dtype = torch.bfloat16 if form == "bfloat16" else torch.float32
        product = Int8Product if form == "int8" else Product
        self._embeddings = model.embeddings
        table = model.embeddings.position_embeddings
        self._first = 0 if table.padding_idx is None else table.padding_idx + 1
        self._layers = [
            Layer(layer, self._dtype, product) for layer in model.encoder.layer
        ]

    def __call__(self, texts: list[torch.Tensor]) -> torch.Tensor:
        """The mean of the last states of each text's token ids, float32 (B, H)."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        lengths = [len(texts[row]) for row in order]
        ids = torch.cat([texts[row] for row in order])
        places = torch.cat([torch.arange(length) for length in lengths]) + self._first
        x_NH = self._embeddings(input_ids=ids[None], position_ids=places[None])[0]
        x_NH = functional.pad(x_NH, (0, 0, 0, -len(ids) % BLOCK_ROWS)).to(self._dtype)
        runs = [(lengths.count(length), length) for length in sorted(set(lengths))]
        for layer in self._layers:
            x_NH = layer(x_NH, runs)
        out = torch.empty((len(texts), x_NH.shape[1]))
        for row, part in zip(order, x_NH[: len(ids)].split(lengths), strict=True):
            out[row] = part.float().mean(dim=0)
        return out
