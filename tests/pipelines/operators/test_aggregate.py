import itertools
import random

import numpy as np
import pyarrow as pa
import pytest
from pyflink.common import Row

from automl.features import FeatureAssembler
from automl.task import TaskSpec
from connectors.flink import ASIDE
from connectors.rows import CLOCK, LABELS_READ
from pipelines.offline import backfill_rows
from pipelines.operators import aggregate, seen_rows
from pipelines.operators.aggregate import (
    AggregateWindows,
    StateError,
    windows_column,
)
from pipelines.operators.parts import Part, onward
from pipelines.operators.shards import Shards, shard_of

AT_MS = 1_760_000_000_000
SHARDS = 4
ENTITIES = ("customer", "terminal")


@pytest.fixture
def events(payment):
    """Payments of three customers at three terminals, some of them out of order."""
    draw, clock, found = random.Random(0), AT_MS, []
    for n in range(240):
        clock += draw.choice([0, 1, 300, 4000])
        found.append(
            payment(
                n,
                event_time_ms=clock,
                amount=round(draw.random() * 100, 2),
                foreign=draw.random() < 0.3,
                customer=draw.choice("abc"),
                terminal=draw.choice(["t1", "t2", "t3"]),
            )
        )
    return found


def window_operator(task, entity="customer", next_key="terminal", nodes=1, senders=1):
    return AggregateWindows(
        task=task,
        entity=entity,
        next_key=next_key,
        senders=senders,
        bootstrap="nowhere:9092",
        labels="run.labels",
        shards=SHARDS,
        nodes=nodes,
    )


NUMBER = itertools.count()


def part_of(rows):
    return Part((0, next(NUMBER)), np.arange(len(rows)), rows)


def run(runtime, operator, rows):
    """Rows through one operator of a node that has all shards."""
    out = []
    for node, body in runtime.give(operator, 0, part_of(rows)):
        if not isinstance(body, Part):
            out.append((node, body))
        elif body.rows is not None:
            out.append(Row(node, body.rows))
    return out


def values_by_id(out, entity="customer"):
    return {
        event_id: values.tobytes()
        for _, rows in out
        for event_id, values in zip(
            rows.event_id.to_pylist(), rows.columns[windows_column(entity)], strict=True
        )
    }


def test_windows_are_those_of_the_payments_before(runtime, task, rows_of, payment):
    operator = runtime.open(window_operator(task))
    amounts = [(0, 10.0, "t1"), (9_999, 5.0, "t2"), (60_000, 1.0, "t2")]
    seen = []
    for n, (after_ms, amount, terminal) in enumerate(amounts):
        event = payment(
            n, event_time_ms=AT_MS + after_ms, amount=amount, terminal=terminal
        )
        event["foreign"] = n == 1
        ((_, rows),) = run(runtime, operator, rows_of("tabular", event))
        seen.append(rows.columns[windows_column("customer")][0].tolist())
    # paid in (t - 60 s, t], share abroad in (t - 10 s, t], distinct terminals
    assert seen == [[10.0, 0.0, 1.0], [15.0, 0.5, 2.0], [6.0, 0.0, 1.0]]


def test_the_jobs_features_equal_the_backfill_bit_for_bit(
    runtime, new_runtime, task, rows_of, events
):
    spec = TaskSpec.from_json(task)
    first = runtime.open(window_operator(task))
    second_runtime = new_runtime()
    second = second_runtime.open(window_operator(task, "terminal", "case_id"))
    assembler = FeatureAssembler(spec)
    streamed = {}
    for at in range(0, len(events), 7):
        part = rows_of("tabular", *events[at : at + 7], frame=True)
        # every row by itself, so that the second operator sees the stream's order
        for i in range(len(part)):
            for node, rows in run(runtime, first, part.take([i])):
                for _, done in second_runtime.give(second, node, part_of(rows)):
                    x = assembler.assemble(
                        done.event_time_ms,
                        done.columns,
                        {e: done.columns[windows_column(e)] for e in spec.entities},
                    )
                    streamed[done.event_id[0].as_py()] = x[0].tobytes()
    # the backfill orders equal times by id: give ids that sort as they were sent
    renamed = [{**e, "event_id": f"{i:04d}"} for i, e in enumerate(events)]
    table = backfill_rows(spec, rows_of("tabular", *renamed, frame=True))
    offline = np.column_stack([table[n].to_numpy() for n in spec.feature_names])
    ids = [events[int(i)]["event_id"] for i in table["event_id"].to_pylist()]
    assert streamed == {i: x.tobytes() for i, x in zip(ids, offline, strict=True)}


def test_frames_give_what_single_events_give(new_runtime, task, rows_of, events):
    rows = rows_of("tabular", *events, frame=True)
    one, many = new_runtime(), new_runtime()
    singly = one.open(window_operator(task))
    whole = many.open(window_operator(task))
    single = [x for i in range(len(rows)) for x in run(one, singly, rows.take([i]))]
    assert values_by_id(single) == values_by_id(run(many, whole, rows))


@pytest.mark.parametrize("chunk_rows", [512, 5])
def test_a_restart_goes_on_bit_for_bit(
    new_runtime, monkeypatch, task, rows_of, events, chunk_rows
):
    monkeypatch.setattr(seen_rows, "CHUNK_ROWS", chunk_rows)
    steady, broken = new_runtime(), new_runtime()
    undisturbed = steady.open(window_operator(task))
    operator = broken.open(window_operator(task))
    expected, found = [], []
    for at in range(0, len(events), 10):
        rows = rows_of("tabular", *events[at : at + 10])
        expected += run(steady, undisturbed, rows)
        found += run(broken, operator, rows)
        if at % 30 == 0:
            operator = broken.open(window_operator(task))
    assert values_by_id(found) == values_by_id(expected)


def test_the_log_of_rows_is_written_anew_when_most_are_not_needed(
    runtime, monkeypatch, task, rows_of, payment
):
    monkeypatch.setattr(seen_rows, "SPARE_ROWS", 20)
    operator = runtime.open(window_operator(task))
    # the longest window is a minute, so of one payment a minute two are needed
    for n in range(300):
        rows = rows_of("tabular", payment(n, event_time_ms=AT_MS + n * 60_000))
        rows.columns[CLOCK] = rows.event_time_ms
        run(runtime, operator, rows)
    again = runtime.open(window_operator(task))
    run(runtime, again, rows_of("tabular", payment(300, event_time_ms=AT_MS)))
    assert again._windows.rows_kept < 100


def test_rows_go_on_to_the_node_of_the_next_key(runtime, task, rows_of, events):
    operator = runtime.open(window_operator(task, nodes=SHARDS))
    out = run(runtime, operator, rows_of("tabular", *events[:50]))
    assert sum(len(rows) for _, rows in out) == 50
    for node, rows in out:
        assert {shard_of(t, SHARDS) for t in rows.columns["terminal"]} == {node}


def test_a_restart_with_other_features_is_refused(runtime, task, rows_of, payment):
    run(runtime, runtime.open(window_operator(task)), rows_of("tabular", payment()))
    features = [
        one if isinstance(one, str) else {**one, "window": "2m"}
        for one in task["features"]
    ]
    longer = {**task, "features": features}
    operator = runtime.open(window_operator(longer))
    with pytest.raises(StateError, match=r"windows of customer.*120000 ms back"):
        run(runtime, operator, rows_of("tabular", payment(1)))


class Feed:
    """Labels that lie in a topic, and who asked for them."""

    def __init__(self, *place, now_ms):
        self.asked = []
        self.read_to = {0: 3, 1: 4}
        self.waiting = None

    def fresh(self, created_ms):
        self.asked.append(created_ms)
        waiting, self.waiting = self.waiting, None
        return waiting


def test_labels_are_read_before_a_frame_is_answered(
    runtime, monkeypatch, task, rows_of, payment
):
    monkeypatch.setattr(aggregate, "LabelFeed", Feed)
    risk = {"name": "risk", "entity": "customer", "agg": "rate", "column": "label"}
    spec = {**task, "features": [{**risk, "window": "1m"}]}
    operator = runtime.open(window_operator(spec))
    run(runtime, operator, rows_of("tabular", payment(0)))
    cases = pa.array([payment(0)["case_id"]])
    known_ms = np.array([AT_MS + 5000])
    operator._feed.waiting = (cases, known_ms, np.array([1.0]))
    seen = []
    for n, after_ms in ((1, 4999), (2, 5000)):
        event = payment(n, event_time_ms=AT_MS + after_ms)
        ((_, rows),) = run(runtime, operator, rows_of("tabular", event))
        seen.append(rows.columns[windows_column("customer")][0, 0])
        assert rows.columns[LABELS_READ].tolist() == [[3, 4]]
    assert seen == [0.0, 1.0]
    assert len(operator._feed.asked) == 3


class Nodes:
    """The operators of both entities on several nodes, and what is between them."""

    def __init__(self, new_runtime, task, nodes, seed):
        self.nodes, self.layout = nodes, Shards(SHARDS, nodes)
        self.draw = random.Random(seed)
        self.stages = []
        for entity, key, senders in (
            ("customer", "terminal", 1),
            ("terminal", "case_id", nodes),
        ):
            stage = []
            for node in range(nodes):
                runtime = new_runtime()
                first = -(-node * SHARDS // nodes)
                runtime.groups = range(first, -(-(node + 1) * SHARDS // nodes))
                settings = {"nodes": nodes, "senders": senders}
                operator = window_operator(task, entity, key, **settings)
                stage.append((runtime, runtime.open(operator)))
            self.stages.append(stage)

    def send(self, frames):
        """All frames through all nodes; nodes and channels run at random speeds."""
        channels = {}
        for number, rows in enumerate(frames):
            part = Part((0, number), np.arange(len(rows)), rows)
            for key, body in onward(self.layout, part, "customer"):
                channels.setdefault((0, -1, key), []).append((key, body))
        found = {}
        while waiting := [channel for channel, queue in channels.items() if queue]:
            stage, sender, key = self.draw.choice(sorted(waiting))
            _, body = channels[stage, sender, key].pop(0)
            if stage == len(self.stages):
                for i, event_id in enumerate(body.event_id.to_pylist()):
                    columns = [body.columns[windows_column(e)][i] for e in ENTITIES]
                    found[event_id] = np.concatenate(columns).tobytes()
                continue
            node = key * self.nodes // SHARDS
            runtime, operator = self.stages[stage][node]
            for target, out in runtime.give(operator, key, body):
                if target is ASIDE:
                    continue
                channels.setdefault((stage + 1, node, target), []).append((target, out))
        return found


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_several_nodes_give_the_features_that_one_gives(
    new_runtime, task, rows_of, events, nodes
):
    late = {**events[200], "event_id": "late", "event_time_ms": AT_MS - 600_000}
    sent = [*events[:200], late, *events[200:]]
    frames = [
        rows_of("tabular", *sent[at : at + 9], frame=True)
        for at in range(0, len(sent), 9)
    ]
    alone = Nodes(new_runtime, task, 1, seed=0).send(frames)
    assert len(alone) == len(sent)
    for seed in range(3):
        assert Nodes(new_runtime, task, nodes, seed).send(frames) == alone
