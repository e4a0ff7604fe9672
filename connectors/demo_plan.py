"""The demo's world without its media: who pays where, and which cases are fraud."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

DAY_MS = 86_400_000
#: Signs a case may show in its media.
MEDIA_SIGNS = (
    "scam_text",
    "tampered_image",
    "robotic_voice",
    "receipt_mismatch",
    "voice_mismatch",
)
#: Category -> (share of terminals, merchant risk).
_CATEGORIES = {
    "grocery": (0.34, 0.05),
    "restaurant": (0.22, 0.12),
    "fuel": (0.14, 0.10),
    "travel": (0.10, 0.28),
    "electronics": (0.09, 0.38),
    "gaming": (0.06, 0.55),
    "crypto": (0.05, 0.85),
}
_MERCHANTS = ("Corner", "Sunny", "Harbour", "Old Town", "Green", "Central", "Lucky")
_COUNTRIES = ("DE", "FR", "NL", "ES", "IT", "PL")
#: Fraud kind -> (share in the past, share in the live part, chance of each media sign).
_KINDS = {
    "burst": (0.25, 0.12, 0.3),
    "terminal": (0.25, 0.12, 0.3),
    "amount": (0.20, 0.10, 0.3),
    "media": (0.30, 0.16, 0.55),
    "new_pattern": (0.0, 0.50, 0.1),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """Size and odds of the demo's world.

    Attributes:
        customers: how many people pay.
        terminals: how many places they pay at.
        rate: cases per second of event time, so that a customer pays about three
            times a day; a driver may send them faster than that.
        fraud_share: share of fraud among the cases.
        missing: chance that a case lacks its message, its picture, its clip (each).
        missing_tabular: chance that a case lacks its payment row.
        stray_sign: chance that a legitimate case shows a sign of fraud (each sign).
        label_delay_ms: event time from a payment to its label.
    """

    customers: int = 600
    terminals: int = 150
    rate: float = 0.02
    fraud_share: float = 0.05
    missing: float = 0.25
    missing_tabular: float = 0.01
    stray_sign: float = 0.01
    label_delay_ms: int = 2 * 3_600_000


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseFacts:
    """One payment as it truly is; `kind` and `signs` never enter an event.

    Attributes:
        row: the typed columns of its tabular event.
        kind: "" for a legitimate payment, else the kind of fraud.
        signs: which of `MEDIA_SIGNS` it shows.
        merchant: name printed on the receipt.
        pitch_hz: of the customer's voice.
    """

    case_id: str
    event_time_ms: int
    row: dict[str, str | float | bool]
    merchant: str
    pitch_hz: float
    kind: str = ""
    signs: frozenset[str] = field(default_factory=frozenset)


class Population:
    """Customers and terminals of one seed; the same in the past and live."""

    def __init__(self, seed: int, config: DemoConfig) -> None:
        rng = np.random.default_rng([seed, 0])
        self.config = config
        self.mean_amount = rng.lognormal(3.6, 0.5, config.customers)
        self.pitch_hz = rng.uniform(85, 250, config.customers)
        self.country = rng.integers(len(_COUNTRIES), size=config.customers)
        self.device_age_days = rng.uniform(20, 900, config.customers)
        self.device_kind = rng.integers(3, size=config.customers)
        shares = np.array([share for share, _ in _CATEGORIES.values()])
        # the last terminal is always of the last category, however few there are
        self.category = rng.choice(len(shares), size=config.terminals, p=shares)
        self.category[-1] = len(shares) - 1
        base = np.array([risk for _, risk in _CATEGORIES.values()])[self.category]
        self.risk = np.clip(base + rng.normal(0, 0.02, config.terminals), 0, 1)
        self.crypto = np.flatnonzero(self.category == len(shares) - 1)
        self.popularity = rng.dirichlet(np.full(config.terminals, 2.0))
        self.brand = rng.integers(len(_MERCHANTS), size=config.terminals)

    def merchant(self, terminal: int) -> str:
        """The name over the door of a terminal."""
        category = list(_CATEGORIES)[self.category[terminal]]
        return f"{_MERCHANTS[self.brand[terminal]]} {category.title()}"

    def facts(
        self,
        rng: np.random.Generator,
        at_ms: int,
        *,
        customer: int,
        terminal: int,
        amount_factor: float = 1.0,
        foreign: float = 0.03,
        device_age_days: float | None = None,
    ) -> CaseFacts:
        """A payment in its ordinary form, apart from what the arguments bend."""
        category = list(_CATEGORIES)[self.category[terminal]]
        amount = self.mean_amount[customer] * rng.lognormal(0, 0.5) * amount_factor
        own_age = float(self.device_age_days[customer])
        fresh = rng.random() < (0.15 if category == "crypto" else 0.04)
        age = device_age_days
        if age is None and fresh:
            age = float(rng.uniform(0.0, 6.0))
        device = f"d{customer:05d}" + ("" if age is None else f"-{at_ms % 99_991:x}")
        abroad = bool(rng.random() < foreign)
        country = _COUNTRIES[(self.country[customer] + abroad) % len(_COUNTRIES)]
        online = category in ("travel", "electronics", "gaming", "crypto")
        return CaseFacts(
            case_id="",
            event_time_ms=at_ms,
            merchant=self.merchant(terminal),
            pitch_hz=float(self.pitch_hz[customer]),
            row={
                "amount": round(float(np.clip(amount, 1.0, 9999.0)), 2),
                "customer": f"c{customer:05d}",
                "terminal": f"t{terminal:04d}",
                "device": device,
                "device_type": ("ios", "android", "web")[self.device_kind[customer]],
                "channel": "online" if online else "shop",
                "category": category,
                "country": country,
                "foreign": abroad,
                "merchant_risk": round(float(self.risk[terminal]), 3),
                "device_age_days": round(own_age if age is None else age, 3),
            },
        )

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """A customer and a terminal that she might well visit."""
        terminal = rng.choice(self.config.terminals, p=self.popularity)
        return int(rng.integers(self.config.customers)), int(terminal)


def plan(
    population: Population,
    rng: np.random.Generator,
    *,
    cases: int,
    start_ms: int,
    rate: float,
    live: bool,
) -> list[CaseFacts]:
    """The cases of a span in time order; `live` brings the new pattern in."""
    if cases < 1 or rate <= 0:
        msg = f"plan a demo: cases and rate must be above 0, got {cases}, {rate}"
        raise ValueError(msg)
    config = population.config
    span_ms = max(1, int(1000 * cases / rate))
    fraud = max(1, round(config.fraud_share * cases))
    planned: list[CaseFacts] = []
    for kind, budget in _budgets(fraud, live).items():
        episodes: list[CaseFacts] = []
        while len(episodes) < budget:
            at_ms = start_ms + int(rng.integers(span_ms))
            episodes.extend(_episode(population, rng, kind, at_ms))
        planned += [
            replace(facts, kind=kind, signs=_signs(rng, _KINDS[kind][2], kind))
            for facts in episodes[:budget]
        ]
    for at_ms in _times(rng, cases - len(planned), start_ms, span_ms).tolist():
        customer, terminal = population.draw(rng)
        facts = population.facts(rng, at_ms, customer=customer, terminal=terminal)
        planned.append(replace(facts, signs=_signs(rng, config.stray_sign, "")))
    last_ms = start_ms + span_ms - 1
    planned = [replace(f, event_time_ms=min(f.event_time_ms, last_ms)) for f in planned]
    return sorted(planned, key=lambda facts: facts.event_time_ms)


def _budgets(fraud: int, live: bool) -> dict[str, int]:
    """How many fraud cases of each kind, adding up to `fraud`."""
    weights = {kind: row[1 if live else 0] for kind, row in _KINDS.items()}
    ends = np.round(np.cumsum(list(weights.values())) * fraud).astype(int)
    return dict(zip(weights, np.diff(ends, prepend=0).tolist(), strict=True))


def _episode(
    population: Population, rng: np.random.Generator, kind: str, at_ms: int
) -> Iterator[CaseFacts]:
    """The payments of one act of fraud."""
    customer, terminal = population.draw(rng)
    if kind == "burst":
        for offset_ms in np.sort(rng.integers(480_000, size=rng.integers(4, 8))):
            place = population.draw(rng)[1]
            when = at_ms + int(offset_ms)
            yield population.facts(rng, when, customer=customer, terminal=place)
    elif kind == "terminal":
        for offset_ms in np.sort(rng.integers(5_400_000, size=rng.integers(6, 11))):
            yield population.facts(
                rng,
                at_ms + int(offset_ms),
                customer=population.draw(rng)[0],
                terminal=terminal,
                amount_factor=1.5,
                foreign=0.7,
            )
    elif kind == "amount":
        yield population.facts(
            rng,
            at_ms,
            customer=customer,
            terminal=terminal,
            amount_factor=float(rng.uniform(6, 12)),
        )
    elif kind == "new_pattern":
        yield population.facts(
            rng,
            at_ms,
            customer=customer,
            terminal=int(rng.choice(population.crypto)),
            device_age_days=float(rng.uniform(0.0, 0.5)),
        )
    else:
        yield population.facts(rng, at_ms, customer=customer, terminal=terminal)


def _signs(rng: np.random.Generator, chance: float, kind: str) -> frozenset[str]:
    shown = rng.random(len(MEDIA_SIGNS)) < chance
    if kind == "media":
        shown[rng.choice(len(MEDIA_SIGNS), 2, replace=False)] = True
    return frozenset(s for s, on in zip(MEDIA_SIGNS, shown, strict=True) if on)


def _times(
    rng: np.random.Generator, cases: int, start_ms: int, span_ms: int
) -> npt.NDArray[np.int64]:
    """Instants in the span, a third as dense in the night hours (0 to 6, UTC)."""
    drawn = start_ms + rng.integers(span_ms, size=2 * cases)
    weight = np.where((drawn % DAY_MS) < 6 * 3_600_000, 0.33, 1.0)
    if not cases:
        return drawn
    return rng.choice(drawn, cases, replace=False, p=weight / weight.sum())
