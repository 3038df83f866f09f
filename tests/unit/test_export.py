"""What is exported is what was measured, and other tools can read it."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evo.errors import InputError
from evo.export import (
    champion_of_trial,
    exported_key,
    find_champion,
    header_text,
    json_artifact,
    json_text,
    measured_text,
    write_file,
)
from evo.interchange import export_optuna, record_campaign, t4_of_campaign, trials_csv, trials_parquet
from evo.record import Record, open_record
from tests.synthetic import fill_campaign, make_spec, promote_best


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    with open_record(tmp_path_factory.mktemp("export") / "results.db") as opened:
        campaign_id = opened.start_campaign(make_spec())
        promote_best(opened, campaign_id, fill_campaign(opened, campaign_id, 60))
        opened.finish_campaign(campaign_id, "done", "budget spent")
        yield opened


def test_the_exported_header_carries_its_provenance_and_yields_the_measured_key(record: Record) -> None:
    champion = find_champion(record, "phase4")
    text = header_text(champion)
    assert measured_text(text) == champion.variant.header
    assert exported_key(text, champion.variant) == champion.variant.key
    for fact in ("phase4", "mission", "Example GPU", "driver 580.00", "0123456789abcdef", "flash", "95 % interval"):
        assert fact in text
    assert champion.variant.key in text
    assert text.startswith("// Evo 0.1.0: ")
    edited = text.replace("kStages = ", "kStages = 1")
    assert exported_key(edited, champion.variant) != champion.variant.key


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ installed")
def test_the_exported_header_compiles_and_may_be_included_twice(record: Record, tmp_path: Path) -> None:
    champion = find_champion(record, "phase4")
    write_file(tmp_path / "champion.h", header_text(champion))
    tile_q = champion.variant.configuration["tile_q"]
    program = '#include "champion.h"\n#include "champion.h"\n' + f"static_assert(evo::Config::kTileQ == {tile_q});"
    (tmp_path / "use.cpp").write_text(program)
    command = ["g++", "-std=c++20", "-Wall", "-Werror", "-fsyntax-only", str(tmp_path / "use.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_hostile_names_stay_within_their_comment(record: Record) -> None:
    champion = find_champion(record, "phase4")
    hostile = replace(champion.campaign, case_name='x\n#error "out"\\\n', replay="played\r\nint main;\\")
    text = header_text(replace(champion, campaign=hostile))
    outside = text.replace(measured_text(text), "")
    outside = outside[: outside.index("#ifndef __CUDACC_RTC__")] + outside[outside.rindex("#endif") :]  # no names there
    assert all(line.startswith(("//", "#ifndef EVO_", "#define EVO_", "#endif")) for line in outside.splitlines())
    assert not any(line.endswith("\\") for line in outside.splitlines())


def test_a_header_without_its_markers_is_refused() -> None:
    with pytest.raises(InputError, match="mark the measured text"):
        measured_text("#pragma once\n")


def test_the_artifact_is_strict_json_with_raw_samples(record: Record) -> None:
    champion = find_champion(record, "phase4")
    document = json.loads(json_text(json_artifact(champion)), parse_constant=lambda word: pytest.fail(word))
    assert document["variant"]["key"] == champion.variant.key
    assert document["variant"]["sources"][""].startswith("// Stand-in")
    assert document["ratio"]["anchor"] == "flash"
    assert document["environment"]["git_sha"].startswith("0123")
    warm = [item for item in document["samples"] if item["l2"] == "warm" and item["name"] == "variant"]
    assert len(warm[0]["values_us"]) == 30
    assert "replayed_at" not in document
    replayed = replace(champion, campaign=replace(champion.campaign, replay="recorded times of a GPU"))
    assert "measured_at" not in json_artifact(replayed), "a replayed time is never called a measured one"


def test_a_trial_that_was_not_promoted_says_so(record: Record) -> None:
    trial = next(trial for trial in record.trials(1, valid_only=True))
    champion = champion_of_trial(record, trial)
    assert champion.time_low_us is not None
    assert champion.time_low_us < champion.time_us < (champion.time_high_us or 0)
    assert champion.ratio_low is not None
    assert "measured, not promoted" in header_text(champion)
    rejected = next(trial for trial in record.trials(1) if trial.stage is not None)
    with pytest.raises(InputError, match="was rejected"):
        champion_of_trial(record, rejected)


def test_no_elite_says_what_to_run(record: Record) -> None:
    with pytest.raises(InputError, match="no elite of base phase5; run: evo search --base phase5"):
        find_champion(record, "phase5")


def test_t4_has_one_result_per_trial_with_the_published_words(record: Record) -> None:
    document = t4_of_campaign(record, 1)
    trials = record.trials(1)
    assert document["schema_version"] == "1.0.0"
    assert len(document["results"]) == len(trials)
    known = {"timeout", "compile", "runtime", "correctness", "constraints", "correct"}
    for trial, result in zip(trials, document["results"], strict=True):
        assert set(result) == {
            "timestamp",
            "configuration",
            "times",
            "invalidity",
            "correctness",
            "measurements",
            "objectives",
        }
        assert result["invalidity"] in known
        assert (result["invalidity"] == "correct") == (trial.stage is None)
        if trial.time_us is not None:
            assert math.isclose(result["measurements"][0]["value"], trial.time_us / 1e3)
            assert len(result["times"]["runtimes"]) == 12
    json.loads(json_text(document))


def test_csv_and_parquet_hold_the_same_trials(record: Record) -> None:
    trials = record.trials(1)
    rows = list(csv.DictReader(io.StringIO(trials_csv(trials))))
    assert len(rows) == len(trials)
    assert rows[0]["knob.tile_q"] == str(trials[0].configuration["tile_q"])
    assert {row["stage"] for row in rows} == {str(trial.stage or "") for trial in trials}
    assert trials_csv([]) == ""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    table = parquet.read_table(pyarrow.BufferReader(trials_parquet(trials)))
    assert table.num_rows == len(trials)
    assert table.column("time_us").to_pylist() == [trial.time_us for trial in trials]


def test_optuna_opens_the_campaign_as_a_study(record: Record, tmp_path: Path) -> None:
    import optuna

    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    name = export_optuna(record, 1, storage)
    study = optuna.load_study(study_name=name, storage=storage)
    trials = record.trials(1)
    assert len(study.trials) == len(trials)
    fastest = min(trial.time_us for trial in trials if trial.time_us is not None)
    assert study.best_value == fastest
    failed = [trial for trial in study.trials if trial.state is optuna.trial.TrialState.FAIL]
    assert len(failed) == sum(trial.time_us is None for trial in trials)
    assert failed[0].user_attrs["stage"]
    with pytest.raises(InputError, match=r"has study .* already"):
        export_optuna(record, 1, storage)
    with pytest.raises(InputError, match="is the results database"):
        export_optuna(record, 1, f"sqlite:///{record.name}")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="--storage: is no file"):
        export_optuna(record, 1, f"sqlite:///{tmp_path / 'pipe'}")
    with pytest.raises(InputError, match="cannot be opened"):
        export_optuna(record, 1, f"sqlite:///{tmp_path}/nowhere/optuna.db")


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.h"
    target.write_text("old")
    write_file(target, "new")
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_mask()
    for bad in (tmp_path, tmp_path / "nowhere" / "out.h", Path("/proc/out.h")):
        with pytest.raises(InputError, match="-o: "):
            write_file(bad, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["out.h"]


def test_only_files_are_written_over(tmp_path: Path) -> None:
    """A rename onto a device replaces it: as root, /dev/null of the whole machine."""
    pipe, link, file = tmp_path / "pipe", tmp_path / "link.h", tmp_path / "out.h"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="pipe: -o: is a device or a pipe"):
        write_file(pipe, "x")
    assert pipe.is_fifo()
    file.write_text("old")
    link.symlink_to(file)
    write_file(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_a_recording_takes_the_place_of_no_database(record: Record) -> None:
    with pytest.raises(InputError, match=r"-o: is a database; expected another file"):
        record_campaign(1, out=Path(record.name), db=record.name)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
