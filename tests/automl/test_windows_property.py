import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from automl import windows as windows_module
from automl.keys import key_of, text_keys
from automl.task import TaskSpec
from automl.windows import EntityWindows
from tests.automl.window_reference import Reference

SECOND = 1000
KINDS = {"card": "string", "amount": "number", "channel": "string"}
CHANNELS = [None, "web", "shop"]
LABELS = ("count", "sum", "mean", "std", "min", "max", "last", "rate")
NUMBERS = (*LABELS, "distinct", "ratio", "zscore")
EXAMPLES, STEPS = 90, 50
#: How many steps of all examples together must have been taken.
LEAST_STEPS = 2_000


@st.composite
def features(draw: Any) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(1, 8))):
        one: dict[str, Any] = {"name": f"f{number}", "entity": "card"}
        one["window"] = draw(st.sampled_from(["1s", "3s", "20s"]))
        column = draw(st.sampled_from([None, "amount", "channel", "label", "label"]))
        if column == "label":
            one["agg"] = draw(st.sampled_from(LABELS))
        elif column == "amount":
            one["agg"] = draw(st.sampled_from(NUMBERS))
        elif column == "channel":
            one["agg"] = draw(st.sampled_from(["count", "distinct"]))
        else:
            one["agg"] = draw(st.sampled_from(["count", "rate", "age"]))
        if column is not None:
            one["column"] = column
        delay = draw(st.sampled_from([None, None, "1s", "5s"]))
        if delay:
            one["delay"] = delay
        where = draw(st.sampled_from([None, None, "amount>5", "channel=='web'"]))
        if where:
            one["where"] = where
        found.append(one)
    return found


@st.composite
def events(draw: Any) -> list[tuple[int, str, float | None, str | None]]:
    step = st.sampled_from([0, 0, 1, 250, 999, 1000, -1, -400, -2500])
    amount = st.one_of(st.none(), st.integers(0, 9).map(float), st.floats(-1e12, 1e12))
    card = st.sampled_from(["a", "b", "c"])
    row = st.tuples(step, card, amount, st.sampled_from(CHANNELS))
    return draw(st.lists(row, min_size=1, max_size=30))


@st.composite
def labels(draw: Any) -> list[tuple[int, int, float]]:
    """How many rows ago their cases came, when they count from now on, and labels."""
    after = st.sampled_from([1, 1, 1, 2, 701, 5001, 0, -699, -4999])
    label = st.tuples(st.integers(-20, 40), after, st.sampled_from([0.0, 1.0]))
    return draw(st.lists(label, min_size=1, max_size=12))


class Windows(RuleBasedStateMachine):
    """The engine and the reference are told the same and must say the same."""

    steps = 0

    @initialize(chosen=features(), late=st.sampled_from([None, 60 * SECOND]))
    def begin(self, chosen: list[dict[str, Any]], late: int | None) -> None:
        task = {"name": "t", "entities": {"card": "card"}, "features": chosen}
        self.spec = TaskSpec.from_json(task).resolve(KINDS)
        self.late_ms = late
        self.windows = self._new_windows()
        self.reference = Reference()
        self.t, self.rows, self.told = 10**9, 0, []  # type: ignore[var-annotated]
        self.others = 0
        self.wrong: list[Any] = []

    def _new_windows(self) -> EntityWindows:
        return EntityWindows(self.spec, "card", lateness_ms=self.late_ms)

    @rule(batch=events())
    def a_frame_arrives(self, batch: list[tuple[Any, ...]]) -> None:
        type(self).steps += 1
        rows, clock_ms = [], []
        for step, card, amount, channel in batch:
            self.t += max(step, 0)
            clock_ms.append(self.t - 5 * SECOND)
            at = self.t + min(step, 0)
            rows.append(
                {"t": at, "card": card, "amount": amount, "channel": channel}
                | {"case": f"case{self.rows + len(rows)}"}
            )
        self.rows += len(rows)
        keys = np.array([key_of(row["card"]) for row in rows], dtype=np.uint64)
        amounts = [math.nan if r["amount"] is None else r["amount"] for r in rows]
        channels = [key_of(r["channel"]) if r["channel"] else 0 for r in rows]
        got = self.windows.observe(
            keys,
            np.array([row["t"] for row in rows]),
            {
                "card": keys,
                "amount": np.array(amounts),
                "channel": np.array(channels, dtype=np.uint64),
            },
            clock_ms=np.array(clock_ms),
            case_keys=np.array([key_of(row["case"]) for row in rows], dtype=np.uint64),
        )
        for row, values in zip(rows, got.tolist(), strict=True):
            self.reference.add(row)
            for feature, value in zip(self.spec.features, values, strict=True):
                wanted = self.reference.value(feature, row)  # type: ignore[arg-type]
                if not same(feature.agg, value, wanted):  # type: ignore[union-attr]
                    self.wrong.append((feature, row, value, wanted))

    @rule(known=labels())
    def labels_arrive(self, known: list[tuple[int, int, float]]) -> None:
        # of cases that are there, and of some to come; many are corrections
        type(self).steps += 1
        fresh = [
            (f"case{max(self.rows - back, 0)}", self.t + after, label)
            for back, after, label in known
        ]
        for one in fresh:
            self.reference.add_label(*one)
        self.told += fresh
        self._tell(fresh)

    # what is kept for a minute is not forgotten before its event, 20 rows later
    @precondition(lambda self: self.late_ms)
    @rule()
    def labels_of_many_others_arrive(self) -> None:
        type(self).steps += 1
        many = range(self.others, self.others + 600)
        self.others += 600
        self._tell([(f"other{i}", self.t, 1.0) for i in many])

    def _tell(self, told: list[tuple[str, int, float]]) -> None:
        cases = pa.array([case for case, _, _ in told], pa.string())
        self.windows.add_labels(
            text_keys(cases),
            np.array([time_ms for _, time_ms, _ in told], dtype=np.int64),
            np.array([label for _, _, label in told], dtype=np.float64),
        )

    @rule(shards=st.sampled_from([1, 4]))
    def the_job_is_restored(self, shards: int) -> None:
        type(self).steps += 1
        parts = [p for shard in range(shards) for p in self.windows.dump(shards, shard)]
        self.windows = self._new_windows()
        for part in parts:
            self.windows.restore(part)
        self._tell(self.told)

    @invariant()
    def they_say_the_same(self) -> None:
        wrong = getattr(self, "wrong", [])
        assert wrong == [], f"windows differ: {wrong}"


def same(agg: str, value: float, wanted: float) -> bool:
    if math.isnan(wanted):
        return math.isnan(value)
    if agg in ("std", "zscore"):  # the reference rounds at every step
        return math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-6)
    if agg in ("sum", "mean", "ratio"):
        return math.isclose(value, wanted, rel_tol=1e-15, abs_tol=1e-18)
    return value == wanted


def steps_taken(*, phases: tuple[Phase, ...] = tuple(Phase)) -> int:
    """Runs every example, the same ones each time, and gives how many steps ran."""

    class Counted(Windows):
        steps = 0

    run_state_machine_as_test(
        Counted,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Counted.steps


def test_windows_say_what_a_look_at_every_row_says() -> None:
    assert steps_taken() >= LEAST_STEPS


Break = Callable[[pytest.MonkeyPatch], None]


def planned(change: Callable[[Any], None]) -> Break:
    """A plan that was made wrongly."""
    make = EntityWindows.__init__

    def made(self: EntityWindows, *args: Any, **keys: Any) -> None:
        make(self, *args, **keys)
        change(self._plan.program)

    return lambda patch: patch.setattr(EntityWindows, "__init__", made)


def windows_reach_a_millisecond_further(program: Any) -> None:
    program.windows[:, 0] += 1


def windows_are_a_millisecond_short(program: Any) -> None:
    program.windows[:, 0] -= 1


def delays_are_a_millisecond_long(program: Any) -> None:
    program.groups[:, 0] += 1


def counts_have_a_wrong_scale(program: Any) -> None:
    program.scale[:] *= 1 + 1e-12


def labels_are_not_filtered(program: Any) -> None:
    program.lanes[:, 1] = -1


def labels_are_known_a_millisecond_early(patch: pytest.MonkeyPatch) -> None:
    take = EntityWindows.add_labels
    patch.setattr(
        EntityWindows,
        "add_labels",
        lambda self, cases, times, labels: take(self, cases, times - 1, labels),
    )


def corrections_are_not_noticed(patch: pytest.MonkeyPatch) -> None:
    put = windows_module.put_labels
    patch.setattr(
        windows_module, "put_labels", lambda *args, **keys: (put(*args, **keys)[0], 0)
    )


def the_first_label_of_a_case_counts(patch: pytest.MonkeyPatch) -> None:
    take = EntityWindows.add_labels

    def first(self: Any, cases: Any, times: Any, labels: Any) -> None:
        told = self.__dict__.setdefault("told", set())
        fresh = np.array([case not in told for case in cases.tolist()], dtype=bool)
        told.update(cases.tolist())
        take(self, cases[fresh], times[fresh], labels[fresh])

    patch.setattr(EntityWindows, "add_labels", first)


def a_row_is_lost_at_a_restore(patch: pytest.MonkeyPatch) -> None:
    take = EntityWindows.restore
    patch.setattr(EntityWindows, "restore", lambda self, part: take(self, part[1:]))


def the_clock_is_ahead(patch: pytest.MonkeyPatch) -> None:
    answer = EntityWindows.answer

    def ahead(self: Any, rows: Any, clock_ms: Any = None, **keys: Any) -> Any:
        if clock_ms is not None:  # it is 5 s behind the rows
            clock_ms = clock_ms + 6 * SECOND + self.keep_ms - self.horizon_ms
        return answer(self, rows, clock_ms, **keys)

    patch.setattr(EntityWindows, "answer", ahead)


def missing_numbers_are_zero(patch: pytest.MonkeyPatch) -> None:
    pack = EntityWindows.pack

    def filled(self: Any, keys: Any, times: Any, columns: Any, cases: Any) -> Any:
        full = {**columns, "amount": np.nan_to_num(columns["amount"])}
        return pack(self, keys, times, full, cases)

    patch.setattr(EntityWindows, "pack", filled)


BROKEN: dict[str, Break] = {
    change.__name__: planned(change)
    for change in (
        windows_reach_a_millisecond_further,
        windows_are_a_millisecond_short,
        delays_are_a_millisecond_long,
        counts_have_a_wrong_scale,
        labels_are_not_filtered,
    )
} | {
    change.__name__: change
    for change in (
        labels_are_known_a_millisecond_early,
        corrections_are_not_noticed,
        the_first_label_of_a_case_counts,
        a_row_is_lost_at_a_restore,
        the_clock_is_ahead,
        missing_numbers_are_zero,
    )
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_engine_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    BROKEN[name](monkeypatch)
    with pytest.raises(AssertionError, match="windows differ"):
        steps_taken(phases=(Phase.generate,))
