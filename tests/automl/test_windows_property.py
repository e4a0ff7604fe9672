import math
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from automl.keys import key_of
from automl.task import TaskSpec
from automl.windows import EntityWindows
from tests.automl.window_reference import Reference

SECOND = 1000
KINDS = {"card": "string", "amount": "number", "channel": "string"}
CHANNELS = [None, "web", "shop"]
NUMBERS = ("count", "sum", "mean", "std", "min", "max", "last", "rate", "distinct")
LABELS = NUMBERS[:-1]
#: Steps of all examples together: at least 2,000.
EXAMPLES, STEPS = 45, 50


@st.composite
def features(draw: Any) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(1, 8))):
        one: dict[str, Any] = {"name": f"f{number}", "entity": "card"}
        one["window"] = draw(st.sampled_from(["1s", "3s", "20s"]))
        column = draw(st.sampled_from([None, "amount", "amount", "channel", "label"]))
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


class Windows(RuleBasedStateMachine):
    """The engine and the reference are told the same and must say the same."""

    @initialize(chosen=features())
    def begin(self, chosen: list[dict[str, Any]]) -> None:
        task = {"name": "t", "entities": {"card": "card"}, "features": chosen}
        self.spec = TaskSpec.from_json(task).resolve(KINDS)
        self.windows = EntityWindows(self.spec, "card")
        self.reference = Reference()
        self.t, self.rows, self.told = 10**9, 0, []  # type: ignore[var-annotated]
        self.wrong: list[Any] = []

    @rule(batch=events())
    def a_frame_arrives(self, batch: list[tuple[Any, ...]]) -> None:
        rows = []
        for step, card, amount, channel in batch:
            self.t += max(step, 0)
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
            clock_ms=np.full(len(rows), self.t - 5 * SECOND),
            case_keys=np.array([key_of(row["case"]) for row in rows], dtype=np.uint64),
        )
        for row, values in zip(rows, got.tolist(), strict=True):
            self.reference.add(row)
            for feature, value in zip(self.spec.features, values, strict=True):
                wanted = self.reference.value(feature, row)  # type: ignore[arg-type]
                if not same(feature.agg, value, wanted):  # type: ignore[union-attr]
                    self.wrong.append((feature, row, value, wanted))

    @rule(
        case=st.integers(0, 400),
        behind=st.sampled_from([0, 0, 1, 700, 5000]),
        label=st.sampled_from([0.0, 1.0]),
    )
    def a_label_arrives(self, case: int, behind: int, label: float) -> None:
        # labels of cases to come and corrections included; none from before what was
        # answered, which the reference could not take back
        self._label(f"case{case}", self.t + behind + 1, label)

    def _label(self, case: str, time_ms: int, label: float) -> None:
        self.reference.add_label(case, time_ms, label)
        self.told.append((case, time_ms, label))
        self._tell([self.told[-1]])

    def _tell(self, told: list[tuple[str, int, float]]) -> None:
        self.windows.add_labels(
            np.array([key_of(case) for case, _, _ in told], dtype=np.uint64),
            np.array([time_ms for _, time_ms, _ in told], dtype=np.int64),
            np.array([label for _, _, label in told], dtype=np.float64),
        )

    @rule(shards=st.sampled_from([1, 4]))
    def the_job_is_restored(self, shards: int) -> None:
        parts = [p for shard in range(shards) for p in self.windows.dump(shards, shard)]
        self.windows = EntityWindows(self.spec, "card")
        for part in parts:
            self.windows.restore(part)
        self._tell(self.told)

    @invariant()
    def they_say_the_same(self) -> None:
        assert getattr(self, "wrong", []) == []


def same(agg: str, value: float, wanted: float) -> bool:
    if math.isnan(wanted):
        return math.isnan(value)
    if agg == "std":  # the reference rounds at every step
        return math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-6)
    if agg in ("sum", "mean"):
        return math.isclose(value, wanted, rel_tol=1e-15, abs_tol=1e-18)
    return value == wanted


def test_windows_say_what_a_look_at_every_row_says() -> None:
    run_state_machine_as_test(
        Windows,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
