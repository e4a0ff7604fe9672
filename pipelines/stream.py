"""An archive through Kafka and Flink, with an account of every event at the end."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from automl.registry import verify
from automl.task import TaskSpec
from connectors.kafka import Reader, create_topics, delete_topics
from pipelines import jobs, stack
from pipelines.account import Balance, Ledger
from pipelines.config import JobConfig
from pipelines.feature_table import Served, read_served
from pipelines.replay import Sent, replay
from pipelines.rescale import forget_stopped
from pipelines.skew_check import labels_table

#: Told one line per step.
Say = Callable[[str], None]
#: A row of an event that was decided before leaves no trace unless it is a bad one:
#: it counts as repeated once no new outcome came for this long.
SETTLE_S = 5.0


class StalledError(Exception):
    """Events stayed without outcome although nothing more arrived."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """What a run through the cluster gave.

    Attributes:
        decisions: every decision once, schema `DECISIONS`.
        dead_letters: every dead letter once.
        sent: what was put on the topics.
        balance: the account of it.
        restarts: job restarts while it ran.
        seconds: from the first event sent to the last one accounted for; of an archive
            that lay ready, from the start of the jobs.
        served: the features the decisions rest on; None unless asked for.
        labels: the labels as they lay in their topic, schema `PLACED_LABELS`; None
            unless features were asked for.
    """

    decisions: pa.Table
    dead_letters: list[dict[str, Any]]
    sent: Sent
    balance: Balance
    restarts: int
    seconds: float
    served: Served | None = None
    labels: pa.Table | None = None


def stream(
    local: stack.Stack,
    archive: Path,
    model_folder: Path,
    *,
    nodes: int = 1,
    rate: float | None = None,
    ready: bool = False,
    features: bool = False,
    prefix: str | None = None,
    checkpoint_ms: int = 60_000,
    stall_s: float = 120.0,
    progress: Callable[[int], None] | None = None,
    say: Say | None = None,
) -> Streamed:
    """Replay an archive through jobs and topics of its own, until all is accounted for.

    Args:
        local: a running stack; TaskManagers are added when too few are free.
        archive: folder of Parquet files.
        model_folder: the model version that scores.
        nodes: parallelism of each of the two jobs.
        rate: events per second; None for as fast as it goes.
        ready: all of the archive lies in the topics before the jobs start.
        features: give the features that were served, too.
        prefix: of the topics; None for a new one.
        checkpoint_ms: time between checkpoints of the jobs.
        stall_s: give up when no event found its outcome for this long.
        progress: told the number of events sent so far, between two frames.
        say: told one line per step.

    Raises:
        StalledError: events have no outcome; the message counts them.
    """
    say = say or (lambda line: None)
    prefix = prefix or f"stream-{uuid.uuid4().hex[:8]}."
    config = JobConfig(
        bootstrap=local.bootstrap,
        model_folder=str(model_folder.resolve()),
        prefix=prefix,
        nodes=nodes,
        checkpoint_ms=checkpoint_ms,
    )
    task = TaskSpec.from_json(verify(model_folder).task)
    send = partial(
        replay,
        archive,
        local.bootstrap,
        prefix=prefix,
        rate=rate,
        labels=bool(task.label_entities),
        progress=progress,
    )
    create_topics(local.bootstrap, prefix=prefix)
    local = stack.settled(local)
    nodes_before = local.nodes
    short = 2 * nodes - jobs.free_slots(local)
    if short > 0:
        local = stack.scale(local, local.nodes + short, say=say)
    ledger = Ledger(local.bootstrap, prefix=prefix)
    try:
        if ready:
            lying = send()
            say(f"{lying.total} events and {lying.labels} labels lie in the topics")
            send = partial(_given, lying)
        jobs.submit(local, jobs.JOBS, config)
        say("encode and score jobs run")
        began = time.monotonic()
        sent = _replay_and_follow(send, local, ledger, stall_s, say)
        seconds = time.monotonic() - began
        return Streamed(
            decisions=ledger.decisions(),
            dead_letters=ledger.dead_letters(),
            sent=sent,
            balance=ledger.balance(sent.total, sent.again),
            restarts=sum(jobs.restarts(local, i) for i in _job_ids(local, prefix)),
            seconds=seconds,
            served=read_served(
                local.bootstrap, prefix=prefix, events=ledger.decided_tabular
            )
            if features
            else None,
            labels=_labels(local.bootstrap, prefix) if features else None,
        )
    finally:
        ledger.close()
        for job_id in _job_ids(local, prefix):
            jobs.cancel(local, job_id)
        forget_stopped(local, prefix)
        delete_topics(local.bootstrap, prefix=prefix)
        if short > 0:
            stack.set_nodes(local.home, nodes_before)


def _labels(bootstrap: str, prefix: str) -> pa.Table:
    with Reader(bootstrap, [f"{prefix}labels"]) as reader:
        return labels_table(reader.until_end())


def _given(sent: Sent) -> Sent:
    return sent


def _job_ids(local: stack.Stack, prefix: str) -> list[str]:
    """The jobs of this run; `sluice scale` may have given them new ids."""
    running = jobs.running_jobs(local)
    return [running[prefix + n] for n in jobs.JOBS if prefix + n in running]


def _replay_and_follow(
    replay_all: Callable[[], Sent],
    local: stack.Stack,
    ledger: Ledger,
    stall_s: float,
    say: Say,
) -> Sent:
    results: list[Sent] = []
    errors: list[BaseException] = []

    def send() -> None:
        try:
            results.append(replay_all())
        except BaseException as error:
            errors.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    told = last = time.monotonic()
    before: Balance | None = None
    while True:
        ledger.read()
        now = time.monotonic()
        if errors:
            raise errors[0]
        sent = results[0] if results else Sent()
        balance = ledger.balance(sent.total, sent.again)
        if balance != before or sender.is_alive():
            before, last = balance, now
        settled = not balance.repeated or now - last > SETTLE_S
        if results and balance.lost <= 0 and settled:
            say(f"{balance.accounted} of {sent.total} events accounted for")
            return sent
        if now - last > stall_s:
            msg = (
                f"{balance.lost} of {sent.total} events have no outcome and "
                f"nothing came for {stall_s:.0f} s; look at the jobs' logs in "
                f"{local.home / 'logs'}"
            )
            raise StalledError(msg)
        if now - told > 5:
            told = now
            total = sent.total if results else "so far unknown"
            say(f"{balance.accounted} of {total} events accounted for")
