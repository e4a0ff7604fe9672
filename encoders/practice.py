"""The steps of an alignment, which can go on where they were cut off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from encoders.checkpoint import Checkpoint, Standing
from encoders.lesson import Lesson
from encoders.pace import WeightAverage, rate_share
from encoders.unseen import Pair

#: Told the share done (0..1) and a line a person can read.
Progress = Callable[[float, str], None]

#: How much of the averaged weights stays at each step.
AVERAGE_DECAY = 0.98
WEIGHT_DECAY = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignConfig:
    """How the encoders are trained.

    Attributes:
        steps: batches of what is learnt together; they decide how long it takes.
        trial_steps: batches in which a pair alone must show that it can be learnt.
        batch: cases per step.
        rate: peak learning rate.
        temperature: divides the similarities of the contrastive lesson, at the start.
        held_out: share of each modality's items kept aside to judge by.
        check_every: steps between two judgements.
        device: where the networks learn; "auto" is a GPU when there is one.
    """

    steps: int = 480
    trial_steps: int = 40
    batch: int = 128
    rate: float = 2e-3
    temperature: float = 0.1
    held_out: float = 0.08
    check_every: int = 40
    device: str = "auto"


class Practice:
    """Batches, changes and steps of one training: trials of pairs, then all together.

    Args:
        lesson: what is learnt.
        config: how.
        seed: of batches and changes.
        progress: told after every judgement.
        checkpoint: where the training is written down; None for nowhere.

    Attributes:
        steps: done so far.
        trials: pairs that have been tried.
        proven: of them, those that can be learnt.
    """

    def __init__(
        self,
        lesson: Lesson,
        config: AlignConfig,
        seed: int,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.lesson = lesson
        self.config = config
        self.progress = progress or (lambda done, line: None)
        self.steps = self.trials = 0
        self.proven: list[Pair] = []
        self._seed = seed
        self._changes = torch.Generator().manual_seed(seed)
        self._checkpoint = checkpoint
        self._planned = len(lesson.pairs) * config.trial_steps + config.steps
        self._began = time.monotonic()
        self._left_off: Standing | None = None

    def take_up(self) -> float:
        """Go on where the same training was cut off; gives the seconds it had spent."""
        standing = self._checkpoint.read() if self._checkpoint else None
        if standing is None:
            if self._checkpoint and self._checkpoint.path.exists():
                line = "align 0: begins anew, what is written down is another training"
                self.progress(0.0, line)
            return 0.0
        told, tensors = standing.told, standing.tensors
        self.trials, self.steps = told["trials"], told["steps"]
        self.proven = [(a, b) for a, b in told["proven"]]
        self.lesson.gain = {(a, b): gain for a, b, gain in told["gain"]}
        for name, network in self._networks().items():
            network.load_state_dict(_under(tensors, name))
        self._changes.set_state(tensors["changes"])
        torch.set_rng_state(tensors["chance"])
        self._began -= told["spent_s"]
        if told["step"]:
            self._left_off = standing
        line = f"align {self.steps}: goes on where it was cut off"
        self.progress(min(1.0, self.steps / self._planned), line)
        return float(told["spent_s"])

    def end_trial(self, pair: Pair, *, proven: bool) -> None:
        """The pair has been tried, and its networks are as they shall be."""
        self.trials += 1
        if proven:
            self.proven.append(pair)
        self._write({}, {})

    def practise(
        self, pairs: Sequence[Pair], steps: int, until: float, *, trial: bool = False
    ) -> None:
        """So many steps, or as many as fit, the pairs in turn; the average is kept."""
        lesson, config = self.lesson, self.config
        moving = {m: lesson.encoders[m].network for pair in pairs for m in pair}
        average = WeightAverage(moving, AVERAGE_DECAY)
        shares = lesson.rates(pairs)
        weights = [weight for part, _ in shares for weight in part]
        groups = [{"params": part, "share": share} for part, share in shares]
        optimiser = torch.optim.AdamW(groups, lr=config.rate, weight_decay=WEIGHT_DECAY)
        began, planned = time.monotonic(), steps
        step = first = self._go_on(optimiser, average)
        batches = self._batches(pairs, first)
        while step < planned and (time.monotonic() < until or not step):
            pair = pairs[step % len(pairs)]
            # the rate rises slowly in a trial, too: it is the start of a training
            whole = config.steps if trial else planned
            for group in optimiser.param_groups:
                done = rate_share(min(1.0, step / max(1, whole)))
                group["lr"] = config.rate * group["share"] * done
            optimiser.zero_grad(set_to_none=True)
            lesson.loss(pair, next(batches[pair]), self._changes).backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            average.take()
            step += 1
            self.steps += 1
            per_step_s = (time.monotonic() - began) / (step - first)
            fitting = step + int((until - time.monotonic()) / per_step_s)
            planned = min(steps, max(step, fitting))
            if step % config.check_every == 0 or step >= planned:
                average.swap()
                lesson.judge(pairs, config.batch)
                average.swap()
                if not trial:
                    told = {"step": step, "taken": average.steps}
                    self._write(told, _parts(optimiser, average))
                self._tell(pairs)
        average.hand_over()

    def _batches(
        self, pairs: Sequence[Pair], step: int
    ) -> dict[Pair, Iterator[NDArray[np.intp]]]:
        """Batches without end of each pair, those of the first steps left out."""
        found: dict[Pair, Iterator[NDArray[np.intp]]] = {}
        for at, pair in enumerate(pairs):
            choice = np.random.default_rng([self._seed, self.trials, at])
            every = _shuffled(self.lesson.cases_of(pair), self.config.batch, choice)
            seen = -(-(step - at) // len(pairs)) if step > at else 0
            found[pair] = islice(every, seen, None)
        return found

    def _tell(self, pairs: Sequence[Pair]) -> None:
        told = [f"{a}-{b} {self.lesson.gain.get((a, b), 0.0):.0%}" for a, b in pairs]
        line = f"align {self.steps}: found above chance among items never seen: "
        self.progress(min(1.0, self.steps / self._planned), line + ", ".join(told))

    def _networks(self) -> dict[str, nn.Module]:
        networks = {m: e.network for m, e in self.lesson.encoders.items()}
        return {**networks, "contrast": self.lesson.contrast}

    def _write(self, told: dict[str, int], parts: dict[str, torch.Tensor]) -> None:
        if self._checkpoint is None:
            return
        tensors = {
            f"{name}.{key}": value
            for name, network in self._networks().items()
            for key, value in network.state_dict().items()
        }
        chance = {
            "changes": self._changes.get_state(),
            "chance": torch.get_rng_state(),
        }
        about = {
            "step": 0,
            "trials": self.trials,
            "steps": self.steps,
            "proven": self.proven,
            "gain": [[*pair, gain] for pair, gain in self.lesson.gain.items()],
            "spent_s": time.monotonic() - self._began,
            **told,
        }
        self._checkpoint.write(Standing({**tensors, **chance, **parts}, about))

    def _go_on(self, optimiser: torch.optim.Optimizer, average: WeightAverage) -> int:
        """The step to go on with, and what was known at it."""
        standing, self._left_off = self._left_off, None
        if standing is None:
            return 0
        state = optimiser.state_dict()
        for at in range(sum(len(g["params"]) for g in state["param_groups"])):
            moments = _under(standing.tensors, f"moments.{at}")
            if moments:
                state["state"][at] = moments
        optimiser.load_state_dict(state)
        average.take_up(_under(standing.tensors, "average"), standing.told["taken"])
        return int(standing.told["step"])


def _parts(
    optimiser: torch.optim.Optimizer, average: WeightAverage
) -> dict[str, torch.Tensor]:
    """What only a training in the middle has: moments and averages."""
    found = {
        f"moments.{at}.{name}": value
        for at, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }
    for name, mean in average.copy().items():
        found |= {f"average.{name}.{key}": value for key, value in mean.items()}
    return found


def _under(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    start = name + "."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _shuffled(
    learn: NDArray[np.intp], size: int, choice: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Batches without end; each case once before any comes again."""
    size = min(size, len(learn))
    while True:
        order = choice.permutation(learn)
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]
