"""One demo from nothing to a printed account: stack, model, jobs, events, search."""

from __future__ import annotations

import multiprocessing
import os
import time
import uuid
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from automl.registry import ModelVersion, Registry
from connectors.demo import DemoWorld
from connectors.demo_task import demo_task
from connectors.kafka import create_topics
from pipelines import jobs, stack
from pipelines.account import Ledger
from pipelines.commands.progress import say
from pipelines.config import JobConfig
from pipelines.demo_feed import Feed
from pipelines.demo_view import View
from pipelines.demo_watch import Watch
from pipelines.keeper import tie_to
from pipelines.operators.read import now_ms
from pipelines.retrieve import Query, RetrieveError, search
from pipelines.services import SERVICES, service_command
from pipelines.stack import Stack

MODEL = "demo"
PAST_CASES = 1600
#: A TaskManager for each of the two jobs.
NODES = 2
#: Give up when no event found its outcome for this long.
STALL_S = 120.0


class Demo:
    """A demo run in one home folder.

    Args:
        home: of the stack and the models.
        events: about how many events to send.
        seconds: how long sending takes.
        seed: of everything random.
    """

    def __init__(self, home: Path, *, events: int, seconds: float, seed: int) -> None:
        self._home = home
        self._events = events
        self._seconds = seconds
        self._world = DemoWorld(seed)
        self._seed = seed
        self._prefix = f"demo-{uuid.uuid4().hex[:8]}."
        self._began = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Everything in order; gives the figures of the final line."""
        # a process of its own: what fitting needs is given back when it is done
        beside = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=tie_to,
            initargs=(os.getpid(),),
        )
        fitting = beside.submit(fit_first_model, self._home, self._seed)
        beside.shutdown(wait=False)
        local = stack.start(self._home, nodes=NODES, owner_pid=os.getpid(), say=say)
        try:
            return self._run_jobs(local, fitting)
        finally:
            say("stopping the stack")
            stack.stop(self._home)

    def _run_jobs(self, local: Stack, fitting: Future[ModelVersion]) -> dict[str, Any]:
        create_topics(local.bootstrap, prefix=self._prefix)
        with jobs.Client(
            local, jobs.JOBS, prefix=self._prefix, warm_nodes=NODES
        ) as client:
            version = fitting.result()
            config = JobConfig(
                bootstrap=local.bootstrap,
                model_folder=str(version.folder.resolve()),
                prefix=self._prefix,
            )
            job_ids = client.submit(config).values()
        for name in SERVICES:
            argv = service_command(
                name, self._home, local.bootstrap, version, prefix=self._prefix
            )
            local.add_service(name, argv, env={"OMP_NUM_THREADS": "1"})
        say("encode and score jobs run, index and retrain start beside them")
        ledger = Ledger(local.bootstrap, prefix=self._prefix)
        watch = Watch(ledger, self._home, self._began)
        feed = Feed(
            local.bootstrap,
            self._world,
            prefix=self._prefix,
            events=self._events,
            seconds=self._seconds,
            seed=self._seed,
        )
        say(f"sending about {self._events} events in {self._seconds:.0f} s")
        found = self._follow(feed, watch, ledger)
        restarts = sum(jobs.restarts(local, job_id) for job_id in job_ids)
        return self._figures(feed, watch, ledger, restarts) | {"search": found}

    def _follow(self, feed: Feed, watch: Watch, ledger: Ledger) -> dict[str, Any]:
        """Watch until every event has its outcome; search once on the way."""
        feed.start()
        searching: Future[dict[str, Any]] | None = None
        warming: Future[None] | None = None
        accounted, moved = 0, time.monotonic()
        with View(watch) as view, ThreadPoolExecutor(max_workers=1) as beside:
            while True:
                watch.poll()
                view.show()
                if feed.failure is not None:
                    raise feed.failure
                if ledger.accounted > accounted or feed.is_alive():
                    accounted, moved = ledger.accounted, time.monotonic()
                if warming is None and accounted > self._events / 2:
                    warming = beside.submit(self._warm_search)
                if searching is None and not feed.is_alive():
                    searching = beside.submit(self._search, feed)
                done = accounted >= feed.fed.events.total() and not feed.is_alive()
                if done and searching is not None and searching.done():
                    return searching.result()
                if time.monotonic() - moved > STALL_S and not done:
                    return {} if searching is None else searching.result()

    def _warm_search(self) -> None:
        """One query nobody waits for: the index loads its text encoder for it."""
        try:
            search(self._home, Query(by="text", content="hello", k=1))
        except RetrieveError as error:
            say(f"warm-up search: {error}")

    def _search(self, feed: Feed) -> dict[str, Any]:
        """Find the newest text again; it may still be on its way into the index."""
        if feed.fed.sample is None:
            return {}
        case_id, text = feed.fed.sample
        deadline = time.monotonic() + 60.0
        while True:
            try:
                answer = search(self._home, Query(by="text", content=text, k=3))
            except RetrieveError as error:
                if time.monotonic() > deadline:
                    raise
                say(f"search: {error}; trying again")
                time.sleep(1.0)
                continue
            hits = answer["hits"]
            if any(hit["case_id"] == case_id for hit in hits) or (
                time.monotonic() > deadline
            ):
                shown = [(h["case_id"], round(h["similarity"], 3)) for h in hits]
                return {"text": text, "hits": shown, "latency_ms": answer["latency_ms"]}
            time.sleep(0.2)

    def _figures(
        self, feed: Feed, watch: Watch, ledger: Ledger, restarts: int
    ) -> dict[str, Any]:
        from automl.evaluate import auc

        balance = ledger.balance(feed.fed.events.total()).to_dict()
        balance.pop("events_in")
        seen = watch.seen
        p50, p99 = watch.latency_ms()
        y, score = watch.scores(feed.fed.labels)
        first = seen.first_alert_s
        return {
            "events_in": dict(feed.fed.events),
            **balance,
            "broken_sent": feed.fed.broken,
            "alerts": len(seen.alert_cases),
            "p50_ms": round(p50, 1),
            "p99_ms": round(p99, 1),
            "model_versions": seen.versions,
            "auc": round(auc(_array(y), _array(score)), 4),
            "job_restarts": restarts,
            "seconds_to_first_alert": None if first is None else round(first, 1),
            "peak_rss_mb": round(seen.peak_rss_mb),
        }


def fit_first_model(home: Path, seed: int) -> ModelVersion:
    """A model fitted on the demo world's past, registered and in charge."""
    from pipelines.train import TrainConfig, train

    registry = Registry(home / "models")
    say(f"drawing {PAST_CASES} past cases and fitting the first model")
    past = DemoWorld(seed).past(PAST_CASES, now_ms() - 86_400_000)
    config = TrainConfig(seed=seed, align_budget_s=20.0, fusion_budget_s=8.0)
    version = train(past, demo_task(MODEL), MODEL, registry, config=config, say=say)
    return registry.promote(MODEL, version.version)


def _array(values: list[Any]) -> Any:
    import numpy as np

    return np.asarray(values)
