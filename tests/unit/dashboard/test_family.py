"""The drawing of where the best came from: who is in it, from left to right, and with what gain."""

from __future__ import annotations

from pathlib import Path

import pytest

from evo.dashboard.family import GENERATIONS, MEMBERS, family, gain_over_parents
from evo.dashboard.views import family_facts, lineage_steps
from evo.record import Origin, RecordedTrial, open_record
from tests.synthetic import make_space, make_spec, make_variant_record


def trial(number: int, time_us: float | None, *parents: int) -> RecordedTrial:
    return RecordedTrial(
        id=100 + number,
        campaign_id=1,
        number=number,
        variant_key=f"key{number}",
        configuration={"x": number},
        time_us=time_us,
        anchor_us=None,
        ratio=None,
        stage=None,
        reason="",
        detail="",
        origin=Origin("crossover" if len(parents) > 1 else "mutate" if parents else "random", tuple(parents)),
        errors=(),
        started_at=0.0,
        recorded_at=0.0,
        build_s=0.0,
        verify_s=0.0,
        measure_s=0.0,
        worker="",
        same_as=None,
        environment={},
    )


def known(*trials: RecordedTrial) -> dict[int, RecordedTrial]:
    return {item.number: item for item in trials}


def test_a_family_runs_from_left_to_right_and_each_line_from_parent_to_child() -> None:
    trials = known(trial(0, 10.0), trial(1, 8.0), trial(5, 7.0, 0, 1), trial(9, 6.0, 5))
    drawn = family(trials[9], trials)
    assert drawn is not None
    place = {box["trial"].number: box["x"] for box in drawn["boxes"]}
    assert place[0] == place[1] < place[5] < place[9]
    assert len(drawn["lines"]) == 3
    assert {box["trial"].number for box in drawn["boxes"] if box["main"]} == {1, 5, 9}, "by the faster parent"
    assert sum(line["main"] for line in drawn["lines"]) == 2
    gains = {box["trial"].number: box["gain"] for box in drawn["boxes"]}
    assert gains[5] == pytest.approx(1 / 8)
    assert gains[0] is None
    corners = {(box["x"], box["y"]) for box in drawn["boxes"]}
    assert len(corners) == 4, "no box hides another"
    assert not drawn["cut"]


def test_without_recorded_parents_there_is_no_drawing() -> None:
    alone = trial(3, 5.0)
    assert family(alone, known(alone)) is None
    orphan = trial(3, 5.0, 1, 2)
    assert family(orphan, known(orphan)) is None, "its parents are not in the database"


def test_a_long_line_is_cut_and_says_so() -> None:
    line = [trial(0, 100.0), *(trial(n, 100.0 - n, n - 1) for n in range(1, 20))]
    drawn = family(line[-1], known(*line))
    assert drawn is not None
    assert len(drawn["boxes"]) == GENERATIONS + 1
    assert drawn["cut"]


def test_many_ancestors_are_held_within_bounds() -> None:
    trials = [trial(n, 50.0 - n, *range(max(0, n - 8), n)) for n in range(40)]
    drawn = family(trials[-1], known(*trials))
    assert drawn is not None
    assert len(drawn["boxes"]) <= MEMBERS + 8
    assert len({(box["x"], box["y"]) for box in drawn["boxes"]}) == len(drawn["boxes"])


def test_a_circle_of_parents_ends() -> None:
    trials = known(trial(1, 5.0, 2), trial(2, 4.0, 1))
    assert family(trials[2], trials) is not None


def test_a_rejected_parent_gives_no_gain() -> None:
    trials = known(trial(0, None), trial(1, 4.0, 0))
    assert gain_over_parents(trials[1], trials) is None


def test_the_page_has_both_the_list_and_the_drawing(tmp_path: Path) -> None:
    import numpy as np

    from evo.outcome import Measured
    from evo.record import Trial

    first, second, third = (make_variant_record(found) for found in make_space().sample(np.random.default_rng(0), 3))
    with open_record(tmp_path / "results.db") as record:
        campaign_id = record.start_campaign(make_spec())
        for number, (variant, time_us, origin) in enumerate(
            [
                (first, 9.0, Origin("random")),
                (second, 8.0, Origin("stranger")),
                (third, 6.0, Origin("crossover", (0, 1))),
            ]
        ):
            record.record_trial(campaign_id, Trial(number, variant, Measured((time_us,) * 5), origin=origin))
        campaign = record.campaign(campaign_id)
        steps = lineage_steps(record, campaign)
        assert [step["trial"].number for step in steps] == [2, 1]
        assert steps[0]["gain"] == pytest.approx(0.25)
        drawn = family_facts(record, campaign)
        assert drawn is not None
        assert len(drawn["boxes"]) == 3
