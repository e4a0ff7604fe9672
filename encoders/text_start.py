"""Where the text network starts: what the texts of an archive settle without labels.

The usual value and spread of each state, how rare each n-gram is, and the directions
in which both together vary most (a truncated SVD). A line read off these directions
tells more of rare labels than the transformer's states alone.

Legend: `N` texts, `H` width of the states, `G` n-gram buckets, `K` directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.text_network import BUCKETS, LEAST_SPREAD, GramBasis, TextNetwork

#: With fewer texts nothing is usual or rare yet, and the network stays as it was.
FEWEST_TEXTS = 32
#: Directions come from at most this many texts, evenly out of all of them.
MOST_TEXTS = 8192
#: Texts that are weighed at once.
CHUNK_ROWS = 512


def settle(network: TextNetwork, rows: torch.Tensor, *, seed: int) -> bool:
    """Set centre, spread, rarity, basis and line from prepared rows (N, R + 2S).

    Args:
        network: changed in place.
        rows: of distinct texts.
        seed: of the search for the directions.

    Returns: whether there were texts enough.
    """
    if len(rows) < FEWEST_TEXTS:
        return False
    with torch.no_grad():
        states = torch.cat([network.states(part) for part in rows.split(CHUNK_ROWS)])
        _settle_states(network, states)
        if network.grams is not None:
            network.grams.idf.copy_(rarity(rows[:, network.read :]))
        step = -(-len(rows) // MOST_TEXTS)
        read = network.standard(states[::step]).numpy()
        _settle_line(network, read, rows[::step, network.read :], seed)
    return True


def rarity(grams: torch.Tensor) -> torch.Tensor:
    """1 + log((1 + N) / (1 + texts that hold it)) of every bucket, float32 (G,).

    Args:
        grams: n-gram rows, float (N, 2S); a bucket comes once in a row.
    """
    slots = grams.shape[1] // 2
    held = grams[:, :slots][grams[:, slots:] > 0].long()
    texts = torch.bincount(held, minlength=BUCKETS).float()
    return 1.0 + torch.log((1.0 + len(grams)) / (1.0 + texts))


def _settle_states(network: TextNetwork, states: torch.Tensor) -> None:
    """Centre, and spread times sqrt(H): a usual text then has length 1."""
    spread = states.std(dim=0, correction=0)
    spread[spread < LEAST_SPREAD] = 1.0
    network.center.copy_(states.mean(dim=0))
    network.scale.copy_(spread * network.hidden**0.5)


def _settle_line(
    network: TextNetwork, read: NDArray[np.float32], grams: torch.Tensor, seed: int
) -> None:
    """The directions of states and n-grams together; the line takes the first D."""
    hidden = network.hidden
    width = network.line.out_features
    if network.grams is None:
        across = _directions(read, width, seed)
        network.line.weight.copy_(torch.from_numpy(across))
        return
    kept = network.grams.basis.shape[1]
    across = _directions(_joined(read, network.grams, grams), kept, seed)
    network.grams.basis.copy_(torch.from_numpy(across[:, hidden:].T))
    network.line.weight[:, :hidden] = torch.from_numpy(across[:width, :hidden])
    network.line.weight[:, hidden:] = torch.eye(width, kept)


def _joined(read: NDArray[np.float32], grams: GramBasis, rows: torch.Tensor) -> Any:
    """States and weighed n-grams side by side, sparse (N, H + G)."""
    from scipy.sparse import csr_matrix, hstack, vstack

    parts = [csr_matrix(read)]
    sparse = []
    for start in range(0, len(rows), CHUNK_ROWS):
        bucket, weight = grams.weigh(rows[start : start + CHUNK_ROWS])
        row, slot = weight.nonzero(as_tuple=True)
        at = (row.numpy(), bucket[row, slot].numpy())
        shape = (len(bucket), BUCKETS)
        sparse.append(csr_matrix((weight[row, slot].numpy(), at), shape=shape))
    parts.append(vstack(sparse, format="csr"))
    return hstack(parts, format="csr")


def _directions(x: Any, count: int, seed: int) -> NDArray[np.float32]:
    """Orthonormal rows, those with most of `x` first, (count, columns of x).

    Where `x` has fewer, random ones fill up: of other texts they say a little. Rows
    for which there is no room left are zero.
    """
    from sklearn.utils.extmath import randomized_svd

    found = min(count, *x.shape)
    _, size, across = randomized_svd(x, found, n_iter=4, random_state=seed)
    across = across[size > LEAST_SPREAD * size[0]].astype(np.float32)
    room = min(count, x.shape[1]) - len(across)
    fill = np.random.default_rng(seed).standard_normal((room, x.shape[1]))
    fill -= (fill @ across.T) @ across
    fill = np.linalg.qr(fill.T)[0].T
    out = np.zeros((count, x.shape[1]), np.float32)
    out[: len(across)] = across
    out[len(across) : len(across) + room] = fill
    return out
