"""An archive through Kafka and Flink, with an account of every event at the end."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.kafka import create_topics, delete_topics
from pipelines import jobs, stack
from pipelines.account import Balance, Ledger
from pipelines.config import JobConfig
from pipelines.replay import Sent, replay

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
        seconds: from the first event sent to the last one accounted for.
    """

    decisions: pa.Table
    dead_letters: list[dict[str, Any]]
    sent: Sent
    balance: Balance
    restarts: int
    seconds: float


def stream(
    local: stack.Stack,
    archive: Path,
    model_folder: Path,
    *,
    nodes: int = 1,
    rate: float | None = None,
    stall_s: float = 120.0,
    say: Say | None = None,
) -> Streamed:
    """Replay an archive through jobs and topics of its own, until all is accounted for.

    Args:
        local: a running stack; TaskManagers are added when too few are free.
        archive: folder of Parquet files.
        model_folder: the model version that scores.
        nodes: parallelism of each of the two jobs.
        rate: events per second; None for as fast as it goes.
        stall_s: give up when no event found its outcome for this long.
        say: told one line per step.

    Raises:
        StalledError: events have no outcome; the message counts them.
    """
    say = say or (lambda line: None)
    prefix = f"stream-{uuid.uuid4().hex[:8]}."
    config = JobConfig(
        bootstrap=local.bootstrap,
        model_folder=str(model_folder.resolve()),
        prefix=prefix,
        nodes=nodes,
    )
    create_topics(local.bootstrap, prefix=prefix)
    short = 2 * nodes - jobs.free_slots(local)
    if short > 0:
        local = stack.scale(local, local.nodes + short, say=say)
    started: list[str] = []
    ledger = Ledger(local.bootstrap, prefix=prefix)
    try:
        started += jobs.submit(local, jobs.JOBS, config).values()
        say("encode and score jobs run")
        began = time.monotonic()
        sent = _replay_and_follow(archive, local, prefix, rate, ledger, stall_s, say)
        return Streamed(
            decisions=ledger.decisions(),
            dead_letters=ledger.dead_letters(),
            sent=sent,
            balance=ledger.balance(sent.total, sent.again),
            restarts=sum(jobs.restarts(local, job_id) for job_id in started),
            seconds=time.monotonic() - began,
        )
    finally:
        ledger.close()
        for job_id in started:
            jobs.cancel(local, job_id)
        delete_topics(local.bootstrap, prefix=prefix)
        if short > 0:
            stack.set_nodes(local.home, local.nodes - short)


def _replay_and_follow(
    archive: Path,
    local: stack.Stack,
    prefix: str,
    rate: float | None,
    ledger: Ledger,
    stall_s: float,
    say: Say,
) -> Sent:
    results: list[Sent] = []
    errors: list[BaseException] = []

    def send() -> None:
        try:
            # no process of this run learns: its labels would only take up a topic
            broker = local.bootstrap
            results.append(
                replay(archive, broker, prefix=prefix, rate=rate, labels=False)
            )
        except BaseException as error:
            errors.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    told = last = time.monotonic()
    before: Balance | None = None
    while True:
        ledger.poll()
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
