"""The command line as a user meets it: real processes, their words, their exit codes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evo import cli
from evo.base import SHIPPED
from tests.command_line import COMMANDS, ROOT, evo, run_main


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(command: tuple[str, ...]) -> None:
    app, callback = cli.app, None
    for word in command:
        for group in app.registered_groups:
            if group.name == word and group.typer_instance is not None:
                app = group.typer_instance
    for registered in app.registered_commands:
        name = registered.name or (registered.callback.__name__.replace("_", "-") if registered.callback else "")
        if name == command[-1]:
            callback = registered.callback
    assert callback is not None
    words = (callback.__doc__ or "").strip()
    assert len(words.splitlines()[0]) > 10
    assert f"Example: evo {' '.join(command)}" in words


def test_a_group_that_is_a_command_too_has_an_example(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run_main("runs --help", monkeypatch) == 0
    assert "Example: evo runs" in capsys.readouterr().out


def test_help_lists_every_command_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom evo.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([m for m in ('torch', 'ray', 'optuna', 'sqlalchemy', 'numpy', 'rich') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert done.stdout.rstrip().endswith("[]")
    for command in COMMANDS:
        assert command[0] in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2], "every command's help whole"


def test_a_replayed_search_says_so_in_every_place(tmp_path: Path) -> None:
    out = evo("search", "--base", "phase4", "--target", "replay", "--budget", "6", cwd=tmp_path).stdout
    assert "No GPU is used: this plays recorded times of NVIDIA H200" in out
    assert "Nothing is measured." in out
    assert "replayed, recorded times of NVIDIA H200" in out
    assert "6/6 evaluated" in out
    assert "Next: evo export --base phase4 -o phase4.h" in out
    assert "\x1b[" not in out, "no colours in a file"
    evo("export", "--base", "phase4", "-o", "phase4.h", cwd=tmp_path)
    header = (tmp_path / "phase4.h").read_text()
    commit = json.loads(gzip.decompress((SHIPPED / "recordings/h200/phase4.json.gz").read_bytes()))["commit"]
    assert f"commit:    {commit}\n" in header, "the commit whose times these are, not the one that plays them"
    assert f"the template is as it is here, not as it was at {commit}" in header


@pytest.mark.parametrize(
    "words",
    [
        "runs",
        "runs show 1 --limit 5",
        "elites",
        "elites --history",
        "bases list",
        "bases show phase4 --arch sm_89",
        "build --base phase4 --arch sm_89 -k tile_q=32 -k consumer_warps=2",
        "export --base phase4 -o champion.h",
        "export --base phase4 -o champion.json --format json",
        "export --base phase4 -o campaign.t4.json --format t4",
        "runs export 1 -o trials.csv",
        "runs export-optuna 1 --storage sqlite:///optuna.db",
        "report 1 -o report.md",
        "db upgrade",
        "doctor",
    ],
)
def test_json_is_one_document_that_parses(played: Path, words: str) -> None:
    done = evo(*words.split(), "--json", cwd=played)
    document = json.loads(done.stdout)
    assert document
    if words == "runs":
        assert document[0]["times"] == "replayed"
        assert document[0]["evaluated"] == 40
    if words == "runs show 1 --limit 5":
        assert len(document) == 5
        assert document[0]["time_us"] == min(row["time_us"] for row in document)
    if words == "elites":
        assert [row["rank"] for row in document] == [1, 2, 3]
    if words.startswith("bases show"):
        assert document["admissible"] > 1000
        assert document["arch"] == "sm_89"
    if words.startswith("build"):
        assert document["resources"]["registers"] > 0
        assert document["configuration"]["tile_q"] == 32
    if words.startswith(("runs export 1", "report")):
        assert (played / document["file"]).stat().st_size > 1000
    if words.startswith("export"):
        text = (played / document["file"]).read_text()
        assert document["replay"] in text
        if words.endswith("-o champion.h"):
            assert "// replayed:  20" in text
            assert "measured:" not in text
        else:
            json.loads(text)


def test_the_json_of_every_command_is_tried_above() -> None:
    """Every command can print JSON, and one that no test asks for it is a gap."""
    tried = {"search", "runs show", "elites", "bases list", "bases show", "build", "export", "doctor"}
    tried |= {"runs export", "runs export-optuna", "report", "db upgrade"}
    elsewhere = {"promote", "verify", "bench", "bases check", "profile", "replay-trial", "record", "dashboard"}
    assert {" ".join(command) for command in COMMANDS} == tried | elsewhere
    for command in COMMANDS:
        assert "as_json" in _callback(command).__annotations__, command


def _callback(command: tuple[str, ...]) -> Any:
    app = cli.app
    for word in command[:-1]:
        app = next(group.typer_instance for group in app.registered_groups if group.name == word)  # type: ignore[misc]
    for registered in app.registered_commands:
        assert registered.callback is not None
        if (registered.name or registered.callback.__name__.replace("_", "-")) == command[-1]:
            return registered.callback
    raise AssertionError(command)


def test_recordings_of_one_place_share_a_database(tmp_path: Path) -> None:
    """An elite that the second recording does not hold has no time in it: it is left out, and that is said."""
    caches = []
    for name, values in (("first", [1, 2, 3]), ("second", [2, 3, 4])):
        (tmp_path / name).mkdir()
        caches.append(tmp_path / name / "one.json")
        cache = {
            "device_name": "Example GPU",
            "kernel_name": "one",
            "tune_params_keys": ["x"],
            "tune_params": {"x": [1, 2, 3, 4]},
        }
        rows = {str(x): {"x": x, "time": float(x), "times": [float(x)] * 5} for x in values}
        caches[-1].write_text(json.dumps(cache | {"objective": "time", "cache": rows}))
    evo("search", "--recording", str(caches[0]), "--budget", "5", cwd=tmp_path)
    done = evo("search", "--recording", str(caches[1]), "--budget", "5", cwd=tmp_path)
    assert "1 incumbents are not in this recording and are left out" in done.stdout
    assert "among the best three" in done.stdout


def test_a_search_without_a_valid_variant_exits_with_1(tmp_path: Path) -> None:
    recording = tmp_path / "broken.json"
    cache = {
        "device_name": "Example GPU",
        "kernel_name": "nothing",
        "tune_params_keys": ["x"],
        "tune_params": {"x": [1, 2]},
        "objective": "time",
        "cache": {"1": {"x": 1, "time": "CompilationFailedConfig"}, "2": {"x": 2, "time": "RuntimeFailedConfig"}},
    }
    recording.write_text(json.dumps(cache))
    done = evo("search", "--recording", str(recording), "--budget", "5", cwd=tmp_path, code=1)
    assert "Nothing valid was found." in done.stdout
    assert "every admissible configuration tried" in done.stdout


def test_a_search_that_failed_goes_on_with_what_is_left_of_its_time(tmp_path: Path) -> None:
    words = ("search", "--base", "phase4", "--target", "replay")
    evo(*words, "--budget", "6", "--time-limit", "1h", cwd=tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "results.db")) as connection, connection:
        connection.execute("UPDATE campaigns SET state = 'failed', end_reason = 'OSError: no space left on device'")
        connection.execute("UPDATE trials SET started_at = started_at - 600 WHERE number = 0")
    offered = evo(*words, "--budget", "3", cwd=tmp_path)
    assert "evo: campaign 1 of phase4, case mission, is unfinished (6 of 6 evaluated)" in offered.stderr
    resumed = evo(*words, "--resume", "--budget", "9", cwd=tmp_path).stdout
    assert re.search(r"Going on with campaign 1 after 6 outcomes, (2\d\d\d|3000) s of its time limit left", resumed)
    assert "9/9 evaluated" in resumed


def test_a_build_that_fails_exits_with_1_and_shows_the_compilers_words(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "kernels/broken.cu").write_text('#include "evo_config.cuh"\nstatic_assert(false, "on_purpose");\n')
    (tmp_path / "search_spaces/broken.yaml").write_text(
        "template: broken.cu\nworkload: attention\nentry: f\nknobs: {x: [1]}\nlaunch: {grid: [1], block: [32]}\n"
    )
    done = evo("build", "--base", "broken", "--arch", "sm_89", cwd=tmp_path, code=1)
    assert "rejected at build" in done.stdout
    assert "on_purpose" in done.stdout


PHASE4 = SHIPPED / "recordings/h200/phase4.json.gz"
