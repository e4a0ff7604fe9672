"""What the demo sends: cases, broken records among them, labels as they fall due."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from connectors.demo import DemoWorld
from connectors.kafka import Producer
from connectors.poison import POISON
from connectors.records import MODALITIES
from connectors.topics import event_topic
from pipelines.operators.read import now_ms

#: One record in this many is broken.
POISON_EVERY = 100


@dataclass(slots=True)
class Fed:
    """What has been sent so far.

    Attributes:
        events: records by modality, broken ones included.
        broken: of those, the broken ones.
        labels: label by case, as sent.
        sample: a case with text whose embedding a search should find.
    """

    events: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    sample: tuple[str, str] | None = None


class Feed(threading.Thread):
    """Sends cases at a steady pace, whatever the pipeline does with them.

    Args:
        bootstrap: HOST:PORT of the broker.
        world: draws the cases.
        prefix: topic prefix of the run.
        events: stop after about this many events.
        seconds: how long sending them should take.
        seed: of the broken records.
    """

    def __init__(
        self,
        bootstrap: str,
        world: DemoWorld,
        *,
        prefix: str,
        events: int,
        seconds: float,
        seed: int = 0,
    ) -> None:
        super().__init__(daemon=True, name="feed")
        self._broker = bootstrap
        self._world = world
        self._prefix = prefix
        self._count = events
        self._seconds = seconds
        self._rng = np.random.default_rng(seed)
        self.fed = Fed()
        self.failure: Exception | None = None

    def run(self) -> None:
        """Send everything; a failure is kept for the thread that waits."""
        try:
            with Producer(self._broker) as producer:
                self._send_all(producer)
                producer.flush()
        except Exception as error:
            self.failure = error

    def _send_all(self, producer: Producer) -> None:
        per_case = 1 + 3 * (1 - self._world.config.missing)
        cases = max(1, round(self._count / per_case))
        span_ms = int(1000 * cases / self._world.config.rate)
        live = self._world.live(cases, now_ms() - span_ms)
        due: deque[tuple[int, str, int]] = deque()
        poison = list(POISON.items())
        self._rng.shuffle(poison)  # type: ignore[arg-type]
        began = time.monotonic()
        sent = 0
        for number, case in enumerate(live):
            ahead_s = number * self._seconds / cases - (time.monotonic() - began)
            time.sleep(max(0.0, ahead_s))
            for event in case.events:
                value = json.dumps(event.to_json(now_ms())).encode()
                topic = event_topic(event.modality)
                producer.send(self._prefix + topic, value, key=event.case_id)
                self.fed.events[event.modality] += 1
                if event.modality == "text":
                    self.fed.sample = (event.case_id, event.content["text"])
                sent += 1
                if sent % POISON_EVERY == 0:
                    _, make = poison[self.fed.broken % len(poison)]
                    self._send_broken(producer, *make(self._rng))
            due.append((case.label_time_ms, case.case_id, case.label))
            while due and due[0][0] <= case.events[0].event_time_ms:
                self._send_label(producer, *due.popleft())
        for label in due:
            self._send_label(producer, *label)

    def _send_broken(self, producer: Producer, topic: str, value: bytes) -> None:
        producer.send(self._prefix + topic, value)
        modality = next(m for m in MODALITIES if topic == event_topic(m))
        self.fed.events[modality] += 1
        self.fed.broken += 1

    def _send_label(
        self, producer: Producer, time_ms: int, case_id: str, label: int
    ) -> None:
        value = {"case_id": case_id, "label_time_ms": time_ms, "label": label}
        raw = json.dumps(value).encode()
        producer.send(f"{self._prefix}labels", raw, key=case_id)
        self.fed.labels[case_id] = label
