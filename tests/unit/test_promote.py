"""Promotion: who reigns after a contest, and why a finalist was refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evo.outcome import Contest, Rejected, Stage
from evo.promote import ELITES, judge, record_crowning
from evo.record import Place, Record, open_record
from tests.synthetic import fill_campaign, make_spec

ROUNDS = 60


def contest(times_us: dict[str, float], *, noise: float = 0.002, seed: int = 0, **rejected: Rejected) -> Contest:
    """Samples around these times with a slow drift that all share."""
    rng = np.random.default_rng(seed)
    drift = 1 + 0.05 * np.sin(np.linspace(0, 3, ROUNDS))
    warm = {name: tuple(us * drift * rng.normal(1, noise, ROUNDS)) for name, us in times_us.items()}
    return Contest(warm, {}, dict(rejected))


BASELINES = {"baseline:flash": 12.0, "baseline:math": 90.0}


def reasons(crowning: object) -> dict[str, str]:
    return {verdict.variant_key: verdict.reason for verdict in crowning.verdicts}  # type: ignore[attr-defined]


def test_the_first_of_a_place_are_crowned_in_the_order_of_their_times() -> None:
    crowning = judge(contest({"a": 8.0, "b": 7.0, "c": 9.0, **BASELINES}), ["a", "b", "c"], [])
    assert crowning.reigning == ("b", "a", "c")
    assert set(reasons(crowning).values()) == {"first of its place"}
    assert crowning.anchor == "flash"
    assert set(crowning.baselines_us) == {"flash", "math"}
    best = next(verdict for verdict in crowning.verdicts if verdict.variant_key == "b")
    assert best.ratio is not None
    assert best.ratio.low <= 12.0 / 7.0 * 1.01
    assert best.gain is None


def test_a_finalist_that_is_clearly_faster_dethrones_the_champion() -> None:
    crowning = judge(contest({"old": 10.0, "new": 9.0, **BASELINES}), ["new"], ["old"])
    assert crowning.reigning == ("new", "old")
    assert reasons(crowning)["new"].startswith("faster than the champion by ")
    verdict = crowning.verdicts[0]
    assert verdict.gain is not None
    assert verdict.gain.low > 1.05


def test_a_gain_within_the_margin_does_not_dethrone() -> None:
    crowning = judge(contest({"old": 10.0, "new": 9.95, **BASELINES}), ["new"], ["old"])
    assert crowning.reigning == ("old", "new")
    assert reasons(crowning)["new"] == "among the best three"


def test_the_margin_is_the_users_to_set() -> None:
    measured = contest({"old": 10.0, "new": 9.7, **BASELINES})
    assert judge(measured, ["new"], ["old"]).reigning == ("new", "old")
    careful = judge(measured, ["new"], ["old"], margin=0.05)
    assert careful.reigning == ("old", "new")
    assert careful.margin == 0.05


def test_a_noisy_gain_does_not_dethrone() -> None:
    crowning = judge(contest({"old": 10.0, "new": 9.7, **BASELINES}, noise=0.3), ["new"], ["old"])
    assert crowning.reigning[0] == "old"


def test_a_full_place_refuses_who_beats_none_of_the_three() -> None:
    times = {"a": 8.0, "b": 8.5, "c": 9.0, "new": 9.5, **BASELINES}
    crowning = judge(contest(times), ["new"], ["a", "b", "c"])
    assert crowning.reigning == ("a", "b", "c")
    assert "not above 1 %" in reasons(crowning)["new"]
    assert not next(v for v in crowning.verdicts if v.variant_key == "new").accepted


def test_a_full_place_takes_who_beats_the_slowest_of_the_three() -> None:
    times = {"a": 8.0, "b": 8.5, "c": 9.0, "new": 8.7, **BASELINES}
    crowning = judge(contest(times), ["new"], ["a", "b", "c"])
    assert crowning.reigning == ("a", "b", "new")
    assert len(crowning.reigning) == ELITES


def test_free_places_are_filled_without_driving_anyone_out_and_no_verdict_says_otherwise() -> None:
    times = {"a": 8.0, "b": 9.0, "x": 8.99, "y": 8.98, "z": 8.97, **BASELINES}
    crowning = judge(contest(times, noise=0.02), ["x", "y", "z"], ["a", "b"])
    assert len(crowning.reigning) == ELITES
    assert set(crowning.reigning) > {"a", "b"}, "a newcomer that only seems faster drives nobody out"
    accepted = {verdict.variant_key for verdict in crowning.verdicts if verdict.accepted}
    assert accepted == set(crowning.reigning)
    refused = [verdict.reason for verdict in crowning.verdicts if not verdict.accepted]
    assert refused == ["3 others are faster or were there before"] * 2


def test_who_is_proved_faster_takes_the_place_of_the_slowest() -> None:
    crowning = judge(contest({"a": 8.0, "b": 9.0, "x": 7.0, "y": 7.5, **BASELINES}), ["x", "y"], ["a", "b"])
    assert crowning.reigning == ("x", "y", "a")
    assert not next(verdict for verdict in crowning.verdicts if verdict.variant_key == "b").accepted


def test_an_incumbent_that_is_wrong_today_loses_its_place() -> None:
    wrong = Rejected(Stage.VERIFY, "wrong_output", "case tiny")
    crowning = judge(contest({"new": 20.0, **BASELINES}, old=wrong), ["new"], ["old"])
    assert crowning.reigning == ("new",)
    assert reasons(crowning)["old"] == "verify: wrong_output: case tiny"


def test_a_wrong_finalist_is_refused_with_the_reason() -> None:
    crowning = judge(contest({"old": 10.0, **BASELINES}, new=Rejected(Stage.CRASH, "SIGSEGV")), ["new"], ["old"])
    assert crowning.reigning == ("old",)
    assert reasons(crowning)["new"].startswith("crash: SIGSEGV")


def test_who_was_not_timed_is_refused() -> None:
    crowning = judge(contest(dict(BASELINES)), ["new"], ["old"])
    assert crowning.reigning == ()
    assert set(reasons(crowning).values()) == {"was not timed"}


def test_a_finalist_that_reigns_already_keeps_its_place_and_is_judged_once() -> None:
    crowning = judge(contest({"old": 10.0, **BASELINES}), ["old"], ["old"])
    assert crowning.reigning == ("old",)
    assert [verdict.reason for verdict in crowning.verdicts] == ["holds its place"]


def test_the_champion_of_today_is_the_fastest_incumbent_of_this_contest() -> None:
    crowning = judge(contest({"first": 11.0, "second": 10.0, **BASELINES}), [], ["first", "second"])
    assert crowning.reigning == ("second", "first")


def test_without_baselines_there_is_no_ratio() -> None:
    crowning = judge(contest({"a": 8.0}), ["a"], [])
    assert crowning.anchor == ""
    assert crowning.verdicts[0].ratio is None


def test_copies_of_one_program_do_not_dethrone_one_another() -> None:
    dethroned = 0
    for seed in range(12):
        times = {"old": 10.0, "x": 10.0, "y": 10.0, "z": 10.0, **BASELINES}
        crowning = judge(contest(times, noise=0.02, seed=seed), ["x", "y", "z"], ["old"])
        dethroned += crowning.reigning[0] != "old"
    assert dethroned <= 1


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with open_record(tmp_path / "results.db") as opened:
        yield opened


def test_verdicts_and_elites_are_recorded_with_every_sample(record: Record) -> None:
    campaign = record.start_campaign(make_spec())
    fill_campaign(record, campaign, 12)
    key = next(trial.variant_key for trial in record.trials(campaign, valid_only=True))
    held = contest({key: 8.0, **BASELINES})
    cold = Contest(held.warm_us, {name: tuple(2 * t for t in times) for name, times in held.warm_us.items()})
    place = Place("phase4", "mission", "float16", "sm_90")
    record_crowning(record, campaign, place, cold, judge(cold, [key], []))
    (elite,) = record.elites(base="phase4")
    assert elite.variant_key == key
    assert elite.rank == 1
    (promotion,) = record.promotions(campaign_id=campaign)
    assert promotion.promotion.accepted
    samples = {(s.name, s.l2): s.values_us for s in record.samples(promotion_id=promotion.id)}
    assert samples[("variant", "warm")] == held.warm_us[key]
    assert set(samples) == {(n, l2) for n in ("variant", "anchor", "math") for l2 in ("warm", "cold")}
    assert promotion.promotion.statistics["cold_us"] == pytest.approx(2 * (promotion.promotion.time_us or 0), rel=0.01)
    assert promotion.promotion.statistics["rounds"] == ROUNDS


def test_elites_that_are_all_wrong_today_leave_their_place_empty(record: Record) -> None:
    campaign, place = record.start_campaign(make_spec()), Place("phase4", "mission", "float16", "sm_90")
    trials = fill_campaign(record, campaign, 12)
    keys = [trial.variant.key for trial in trials if not isinstance(trial.outcome, Rejected)][:2]
    record_crowning(record, campaign, place, first := contest(dict.fromkeys(keys, 8.0)), judge(first, keys, []))
    assert len(record.elites()) == 2
    late = Contest({}, {}, dict.fromkeys(keys, Rejected(Stage.TIMEOUT, "hang", "verification: no answer within 1 s")))
    record_crowning(record, campaign, place, late, judge(late, [], keys))
    assert len(record.elites()) == 2, "what had no time to answer was not wrong"
    wrong = Rejected(Stage.VERIFY, "wrong_output", "case tiny")
    none_right = Contest({}, {}, dict.fromkeys(keys, wrong))
    record_crowning(record, campaign, place, none_right, judge(none_right, [], keys))
    assert record.elites() == []
    reasons = {found.promotion.reason for found in record.promotions() if not found.promotion.accepted}
    assert reasons == {"verify: wrong_output: case tiny", "timeout: hang: verification: no answer within 1 s"}
