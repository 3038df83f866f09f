"""The whole street on this CPU: a real Ray, a real compiler, real times, a header that is what was measured."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evo.export import exported_key, find_champion, measured_text
from evo.record import open_record
from tests.hostile.searches import ground

ROOT = Path(__file__).resolve().parents[1]
BASELINES = {"torch", "torch-1"} if len(os.sched_getaffinity(0)) > 1 else {"torch"}
SEARCH = "search --base cpu_attention --case tiny --no-proof --rounds 30"
pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ installed"),
    pytest.mark.timeout(590),
]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


def evo(words: str, folder: Path, code: int = 0) -> Any:
    command = [sys.executable, "-m", "evo.cli", *words.split(), "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("street")


@pytest.fixture(scope="module")
def searched(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = evo(f"{SEARCH} --budget 8", folder)
    return document


def test_a_search_builds_verifies_measures_and_promotes(searched: dict[str, Any], folder: Path) -> None:
    assert searched["state"] == "done"
    assert searched["evaluated"] == 8
    assert searched["valid"] >= 4
    assert searched["replay"] is None
    assert searched["anchor"] in searched["baselines_us"]
    assert searched["reigning"]
    assert searched["default_us"] > 0
    assert set(searched["baselines_us"]) == BASELINES
    with open_record(folder / "results.db", create=False) as record:
        trials = record.trials(1)
        assert len(trials) == 8
        for trial in trials:
            if trial.stage is None:
                assert trial.errors
                assert all(error.max_error <= error.max_bound for error in trial.errors)
        measured = next(trial for trial in trials if trial.stage is None and trial.same_as is None)
        samples = {s.name: s.values_us for s in record.samples(measured.id)}
        assert len(samples["variant"]) == len(samples["anchor"]) >= 3
        kinds = {interval.kind for interval in record.intervals(1)}
        assert kinds == {"build", "verify", "measure"}
        campaign = record.campaign(1)
        assert "g++" in campaign.environment.toolchain
        assert campaign.environment.device


def test_the_best_found_is_faster_than_the_default(searched: dict[str, Any]) -> None:
    best = searched["finalists"][0]["time"]["median"]
    assert best <= searched["default_us"] * 1.05, "the default is among the first to be tried"


def test_promote_measures_again_and_says_why(searched: dict[str, Any], folder: Path) -> None:
    again = evo("promote 1 --rounds 30", folder)
    assert again["reigning"]
    assert {verdict["reason"] for verdict in again["finalists"]} <= {
        "holds its place",
        "among the best three",
    } or any("champion" in verdict["reason"] for verdict in again["finalists"])


def test_the_exported_header_compiles_and_reproduces_the_key(searched: dict[str, Any], folder: Path) -> None:
    document = evo("export --base cpu_attention -o champion.hpp", folder)
    text = (folder / "champion.hpp").read_text()
    with open_record(folder / "results.db", create=False) as record:
        champion = find_champion(record, "cpu_attention")
    assert document["variant"] == champion.variant.key
    assert exported_key(text, champion.variant) == champion.variant.key
    assert measured_text(text) == champion.variant.header

    build = folder / "by_hand"
    build.mkdir(exist_ok=True)
    for name, source in champion.variant.sources.items():
        (build / (name or "kernel.cpp")).write_text(source)
    (build / champion.variant.header_name).write_text(text)
    command = ["g++", "-std=c++20", "-O1", "-march=native", "-shared", "-fPIC", "-pthread", "-I.", "kernel.cpp"]
    done = subprocess.run([*command, "-o", "kernel.so"], cwd=build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    symbols = subprocess.run(["nm", "-D", "kernel.so"], cwd=build, capture_output=True, text=True, check=True).stdout
    assert " T attention_forward" in symbols


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc installed; NVRTC builds every template elsewhere")
def test_a_header_of_a_gpu_makes_a_c_plus_plus_program_with_its_template(folder: Path) -> None:
    evo("search --base phase5 --target replay --budget 5 --db replayed.db", folder)
    evo("export --base phase5 -o evo_config.cuh --db replayed.db", folder)
    options = f"-std=c++20 -arch=sm_90 -I . -I {ROOT}/kernels -I {ROOT}/kernels/common -o attention"
    command = ["nvcc", *options.split(), str(ROOT / "examples/cpp/attention.cu")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_the_campaign_becomes_a_recording_that_plays(searched: dict[str, Any], folder: Path) -> None:
    written = Path(evo("record 1 -o recorded.json.gz", folder)["file"])
    words = f"search --base cpu_attention --recording {written} --budget 8 --proposer random --db played.db"
    played = evo(words, folder)
    assert played["replay"].startswith("recorded times of ")
    assert (played["evaluated"], played["valid"]) == (searched["evaluated"], searched["valid"])


def test_bench_times_the_champion_beside_torch(searched: dict[str, Any], folder: Path) -> None:
    document = evo("bench --base cpu_attention --case tiny --iters 5", folder)
    assert document["variant"] == "champion"
    assert {row["contender"] for row in document["times"]} == {"this variant", *(f"baseline:{n}" for n in BASELINES)}
    assert all(row["low_us"] <= row["p50_us"] <= row["high_us"] for row in document["times"])


def test_ctrl_c_in_a_terminal_leaves_everything_and_no_process(folder: Path) -> None:
    """The terminal signals the whole process group: driver, Ray, workers and compilers alike."""
    db = folder / "interrupted.db"
    command = [sys.executable, "-m", "evo.cli", *SEARCH.split(), "--budget", "500", "--db", str(db), "--json"]
    with ground() as place:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment(), "TMPDIR": str(place.temporary)},  # marks its processes
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            end = time.monotonic() + 300
            while time.monotonic() < end and process.poll() is None and _rows(db) < 2:
                time.sleep(0.2)
            assert len(place.processes()) > 3, "driver, Ray, seat and builders are seen"
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        _, left = place.settle()
        assert not left
        assert place.litter() == []
    assert process.returncode == 0, err
    assert json.loads(out)["state"] == "interrupted"
    with open_record(db, create=False) as record:
        assert record.campaign(1).state == "interrupted"
        assert 2 <= len(record.trials(1)) < 500


def _rows(db: Path) -> int:
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
        with contextlib.closing(connection):
            return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])
    return 0
