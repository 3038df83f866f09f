"""The record keeps every outcome, who reigned and who runs: what goes in comes out."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from evo.errors import InputError
from evo.outcome import Measured, Rejected, Resources, Stage
from evo.record import Record, Trial, VariantRecord, is_abandoned, open_record
from tests.records import PLACE, check_round_trip, make_promotion, make_spec, make_trial, make_variant, run_python
from tests.synthetic import fill_campaign

# --- what goes in comes out ------------------------------------------------------------------------------------------


def test_everything_recorded_is_read_back_equal_on_sqlite(record: Record) -> None:
    check_round_trip(record)


def test_sqlite_is_in_wal_mode_with_foreign_keys(record: Record, database: Path) -> None:
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with pytest.raises(Exception, match="FOREIGN KEY"):
        record.record_trial(999, make_trial(0))


def test_sources_and_environments_are_stored_once(record: Record, database: Path) -> None:
    for _ in range(2):
        campaign_id = record.start_campaign(make_spec())
        record.record_trials(campaign_id, [make_trial(number) for number in range(5)])
    with sqlite3.connect(database) as connection:
        counts = {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("sources", "environments", "variants", "trials")
        }
    assert counts == {"sources": 2, "environments": 1, "variants": 5, "trials": 10}


def test_a_variant_first_seen_before_its_build_is_completed_later(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    bare = VariantRecord("key0", "phase4", make_variant(0).configuration)
    record.record_trial(campaign_id, Trial(0, bare, Rejected(Stage.TIMEOUT, "build")))
    record.record_trial(campaign_id, dataclasses.replace(make_trial(0), number=1))
    stored = record.variant("key0")
    assert stored.binary_hash == "binary0"
    assert stored.resources == Resources(registers=96)
    assert stored.header == make_variant(0).header
    assert stored.sources == make_variant(0).sources


def test_a_number_is_recorded_once(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    record.record_trial(campaign_id, make_trial(0))
    with pytest.raises(ValueError, match=r"trial \[0\]"):
        record.record_trial(campaign_id, make_trial(0))
    assert record.campaign(campaign_id).evaluated == 1


def test_long_compiler_output_is_cut_with_a_note(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    trial_id = record.record_trial(
        campaign_id, Trial(0, make_variant(0), Rejected(Stage.BUILD, "compile", "x" * 10**6))
    )
    detail = record.trial(trial_id or 0).detail
    assert len(detail) < 100_000
    assert "more characters not kept" in detail


def test_unknown_ids_are_user_errors(record: Record) -> None:
    for query in (lambda: record.campaign(7), lambda: record.trial(7), lambda: record.variant("nope")):
        with pytest.raises(InputError, match=r"results.db: no "):
            query()


# --- elites ----------------------------------------------------------------------------------------------------------


def test_crowning_keeps_the_best_three_and_their_history(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    record.record_trials(campaign_id, [make_trial(number) for number in range(5)])
    for number in range(5):
        record.record_promotion(campaign_id, make_promotion(number))
    record.crown(campaign_id, PLACE, ["key0", "key1", "key2"], at=10.0)
    record.crown(campaign_id, PLACE, ["key3", "key0", "key1", "key2"], at=20.0)
    assert [(elite.rank, elite.variant_key, elite.since) for elite in record.elites()] == [
        (1, "key3", 20.0),
        (2, "key0", 20.0),
        (3, "key1", 20.0),
    ]
    champions = [
        (elite.variant_key, elite.since, elite.until) for elite in record.elites(history=True) if elite.rank == 1
    ]
    assert champions == [("key3", 20.0, None), ("key0", 10.0, 20.0)]
    record.crown(campaign_id, PLACE, ["key3", "key0", "key1"], at=30.0)
    assert all(elite.since == 20.0 for elite in record.elites()), "who keeps a rank keeps its date"
    record.crown(campaign_id, PLACE, ["key0"], at=40.0)
    assert [elite.variant_key for elite in record.elites()] == ["key0"]
    assert record.elites(base="phase3") == []


def test_only_an_accepted_promotion_can_be_crowned(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    record.record_trial(campaign_id, make_trial(0))
    record.record_promotion(campaign_id, make_promotion(0, accepted=False))
    with pytest.raises(ValueError, match="no accepted promotion"):
        record.crown(campaign_id, PLACE, ["key0"])


# --- campaigns left behind -------------------------------------------------------------------------------------------


def test_a_campaign_whose_driver_was_killed_is_unfinished(record: Record, database: Path) -> None:
    script = f"""
        import os, signal
        from tests.records import make_spec, make_trial
        from evo.record import open_record
        record = open_record({str(database)!r})
        campaign_id = record.start_campaign(make_spec())
        record.record_trial(campaign_id, make_trial(0))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run_python(script)
    assert done.returncode == -signal.SIGKILL, done.stderr
    own = record.start_campaign(make_spec())
    (left,) = record.unfinished_campaigns("phase4")
    assert left.id != own
    assert left.evaluated == 1
    assert record.unfinished_campaigns("phase3") == []
    record.resume_campaign(left.id)
    assert record.campaign(left.id).pid == os.getpid()
    assert record.unfinished_campaigns() == []
    record.finish_campaign(left.id, "interrupted", "Ctrl-C")
    assert [campaign.id for campaign in record.unfinished_campaigns()] == [left.id]


def test_a_campaign_run_by_a_living_process_cannot_be_taken(record: Record, database: Path) -> None:
    campaign_id = record.start_campaign(make_spec())
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE campaigns SET pid = ?", (os.getppid(),))
    with pytest.raises(InputError, match="is being run by process"):
        record.resume_campaign(campaign_id)


def test_a_silent_driver_on_another_host_counts_as_gone(record: Record) -> None:
    campaign = record.campaign(record.start_campaign(make_spec()))
    elsewhere = dataclasses.replace(campaign, host="another")
    assert not is_abandoned(elsewhere, now=campaign.heartbeat_at + 5)
    assert is_abandoned(elsewhere, now=campaign.heartbeat_at + 600)


# --- charts ----------------------------------------------------------------------------------------------------------


def test_points_are_thinned_but_keep_every_improvement(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    record.record_trials(record.start_campaign(make_spec()), [make_trial(number) for number in range(3)])
    times = [100.0 - number if number in {0, 37, 55, 83} else 150.0 for number in range(100)]
    record.record_trials(campaign_id, [make_trial(number, time_us) for number, time_us in enumerate(times)])
    everything = record.points(campaign_id)
    assert [point.position for point in everything] == list(range(1, 101))
    assert everything[37].configuration == make_variant(37).configuration
    thinned = record.points(campaign_id, most=10)
    assert 10 <= len(thinned) <= 14
    assert {0, 37, 55, 83} <= {point.number for point in thinned}
    later = record.points(campaign_id, after=everything[89].id)
    assert [point.position for point in later] == list(range(91, 101))


def test_the_best_of_equals_is_the_first(tmp_path: Path) -> None:
    with open_record(tmp_path / "results.db") as record:
        campaign_id = record.start_campaign(make_spec())
        trials = fill_campaign(record, campaign_id, 40)
        other = record.start_campaign(make_spec())
        times = {trial.number: trial.outcome.time_us for trial in trials if isinstance(trial.outcome, Measured)}
        best = min(times, key=lambda number: (times[number], number))
        again = next(trial for trial in trials if trial.number == best)
        record.record_trial(campaign_id, dataclasses.replace(again, number=40))
        found, empty = record.campaign(campaign_id), record.campaign(other)
        assert record.trial(found.best_trial_id or 0).number == best
        assert found.evaluated == 41
        assert (empty.evaluated, empty.best_us, empty.best_trial_id) == (0, None, None)
