import itertools
import pickle

import numpy as np
import pytest

from connectors.records import MODALITIES
from pipelines.operators.assemble import (
    TABULAR,
    Case,
    Landing,
    case_after,
    land,
    release,
)


def landing(modality, number=0, content=None):
    at = MODALITIES.index(modality)
    return Landing(
        f"{modality}-{number}",
        100 + number,
        at,
        1000 + number,
        0,
        np.full(2, at + number, dtype=float) if content is None else content,
    )


ORDERS = list(itertools.permutations(range(4)))
FOUR = [landing(modality) for modality in MODALITIES]


@pytest.mark.parametrize("order", ORDERS)
def test_revisions_do_not_depend_on_how_the_topics_interleave(order):
    case = Case("k")
    made = [p for i in order for p in land(case, FOUR[i])]
    assert [p.revision for p in made] == [0, 1, 2, 3]
    media = [i for i in order if i != TABULAR]
    # tabular first, then the media in the order in which they came
    assert [p.landing.modality for p in made] == [TABULAR, *media]
    for one in made:
        assert set(one.contents) == {TABULAR, *media[: one.revision]}
    assert {m: c.tolist() for m, c in made[-1].contents.items()} == {
        i: [i, i] for i in range(4)
    }
    assert case.revisions == 4
    assert case.held == []


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("again", range(4))
def test_an_event_that_comes_again_changes_nothing(order, again):
    case = Case("k")
    made = []
    for i in order:
        made += land(case, FOUR[i])
        if i == again:
            assert land(case, FOUR[again]) == []
    made += land(case, FOUR[again])
    assert [p.revision for p in made] == [0, 1, 2, 3]


def test_equal_ids_of_two_modalities_are_two_events():
    case = Case("k")
    events = [Landing("same", 7, i, 1, 0, np.zeros(2)) for i in range(4)]
    assert len([p for event in events for p in land(case, event)]) == 4


def test_media_wait_and_are_released_without_a_tabular_event():
    case = Case("k")
    assert land(case, FOUR[1]) == []
    assert land(case, FOUR[3]) == []
    assert [x.event_id for x in case.held] == ["text-0", "audio-0"]
    made = release(case)
    assert [(p.revision, sorted(p.contents)) for p in made] == [(0, [1]), (1, [1, 3])]
    assert release(case) == []
    # what lands from now on is decided at once, the tabular event too
    assert [p.revision for p in land(case, FOUR[2])] == [2]
    assert [p.revision for p in land(case, FOUR[0])] == [3]
    assert sorted(case.contents) == [0, 1, 2, 3]


def test_a_second_event_of_a_modality_replaces_the_first_from_then_on():
    case = Case("k")
    first = land(case, landing("tabular"))[0]
    land(case, landing("text", 0))
    second = land(case, landing("text", 1))[0]
    assert second.contents[1].tolist() == [2.0, 2.0]
    assert list(first.contents) == [TABULAR]


def test_a_case_after_one_event_is_as_if_the_event_had_landed():
    first = landing("tabular", content=np.array([1.5, np.nan]))
    landed = Case("k")
    land(landed, first)
    made = case_after("k", event_key=first.event_key, x=first.content, alerted=False)
    assert made == landed
    assert pickle.loads(pickle.dumps(made)).seen == {(TABULAR, first.event_key)}
    assert land(made, landing("tabular")) == []
    assert [p.revision for p in land(made, landing("text"))] == [1]
