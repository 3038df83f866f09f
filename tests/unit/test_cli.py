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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from evo import __version__, cli
from evo.base import SHIPPED
from evo.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def evo(*words: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, without a GPU, and check its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "evo.cli", *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == code, f"evo {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def commands(app: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for command in app.registered_commands:
        assert command.callback is not None
        yield (*path, command.name or command.callback.__name__.replace("_", "-"))
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, (*path, group.name or ""))


COMMANDS = sorted(commands(cli.app))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results.db of one replayed search."""
    folder = tmp_path_factory.mktemp("cli")
    words = ("search", "--base", "phase4", "--target", "replay", "--budget", "40", "--json")
    document = json.loads(evo(*words, cwd=folder).stdout)
    assert document["state"] == "done"
    assert document["evaluated"] == 40
    assert document["replay"].startswith("recorded times of ")
    assert document["best_us"] > 0
    assert len(document["reigning"]) == 3
    return folder


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
BAD = {
    "search --base phase44": "--base phase44: no such base; did you mean 'phase4'?",
    "search": "--base: expected a base's name",
    "search --base phase4 --budget 0": "--budget 0: expected at least 1",
    "search --base phase4 --seed -1": "--seed -1: expected 0 or more",
    "search --base phase4 --rounds 1": "--rounds 1: expected at least 30",
    "search --base phase4 --seed 4294967296": "--seed 4294967296: expected 0 or more, at most 2147483647",
    "search --base phase4 --budget 99999999999999999999": "expected at least 1, at most 2147483647",
    "promote 1 --rounds 29": "--rounds 29: expected at least 30",
    "search --base phase4 --margin -1": "--margin -1: expected 0 or more percent",
    "search --base phase4 --contest-timeout 0": "--contest-timeout 0: expected more than 0 seconds",
    "search --base phase4 --verify-timeout 0": "--verify-timeout 0: expected more than 0 seconds",
    "search --base phase4 --measure-timeout 90000": "--measure-timeout 90000: expected more than 0 seconds",
    "promote 1 --contest-timeout 0": "--contest-timeout 0: expected more than 0 seconds",
    "promote 1 --margin nan": "--margin nan: expected 0 or more percent",
    "search --base phase4 --patience 0": "--patience 0: expected at least 1",
    "search --base phase4 --control evo": "--control evo: expected random",
    "search --base phase4 --control-share 0.2": "--control-share 0.2: expected --control random with it",
    "search --base phase4 --control random --control-share 1": "--control-share 1: expected more than 0 and less",
    "search --base phase4 --time-limit soon": "--time-limit soon: expected a time such as 90s",
    "search --base phase4 --target tpu": "--target tpu: expected one of auto, cuda, host, replay",
    "search --base phase4 --target cuda": "--target cuda: no NVIDIA GPU here",
    "search --base phase4 --target host": "expected cuda",
    "search --base phase4 --case small": "was recorded with case mission",
    "search --base phase4 --db /nowhere/results.db": "folder /nowhere does not exist",
    "search --base phase4 --db /dev/null": "/dev/null: --db: is a device or a pipe; expected a database file",
    "search --base phase4 --db notes.txt": "notes.txt: not a database; expected an SQLite file",
    "search --base phase4 --db sqlite:///new.db --resume": "--resume: new.db has no unfinished campaign",
    "search --base phase4 --db sqlite:///new.db --proposer nosuch": "unknown name 'nosuch', expected evo",
    "search --base phase4 --proposer nosuch": "unknown name 'nosuch', expected evo",
    "search --base cpu_attention --proposer optuna:NoSuchSampler": "unknown Optuna sampler 'NoSuchSampler'; expected",
    "search --base cpu_attention --resume": "--resume: results.db has no unfinished campaign of cpu_attention",
    "search --base phase4 --resume": "--resume: results.db has no unfinished campaign of phase4, case mission",
    "search --base phase4 --gpu-type L4": "--gpu-type L4: this search uses none of a cluster's GPUs",
    "search --base cpu_attention --gpu-type L4": "cpu_attention is for host here",
    "search --base search_spaces/empty.yaml": "empty.yaml: rules: no combination",
    "search --base search_spaces/launch.yaml": "launch.yaml: launch: expected none: a C++ function is called",
    "search --base search_spaces/gate.yaml": "gate.yaml: gates.few: unknown name 'nonsense'",
    f"search --recording {PHASE4} --target cuda": "--target cuda: --recording plays recorded times; expected auto or",
    f"search --base cpu_attention --recording {PHASE4}": "phase4.json.gz: knobs.tile_q: not of this cpu_attention",
    "search --base cpu_attention --case 1x2x3": "--case 1x2x3: expected tiny, small",
    "search --base cpu_attention --case 1x2x32x65": "head_dim 65 does not fit; expected 64 or 128",
    "search --base cpu_attention --case 64x64x8192x64": "--case 64x64x8192x64: the oracle takes at least 4,160.0 GiB",
    "search --base cpu_attention --dtype float16": "--dtype float16: cpu_attention takes float32",
    "search --recording nothing.json": "--recording nothing.json: no such file",
    "search --recording notes.txt": "notes.txt: ",
    "search --base cpu_attention --ray-address 127.0.0.1:1": "--ray-address 127.0.0.1:1: nothing answers there",
    "bases show nosuch": "no such base",
    f"bases show {'a' * 300}.yaml": "expected a shorter path",
    "bases check cpu_attention --places 0": "--places 0: expected at least 1",
    "build --base cpu_attention --arch sm_89": "--arch sm_89: cpu_attention is a template for host",
    "build --base phase4 --arch sm_70": "--arch sm_70: expected one of sm_80",
    "build --base phase4 --arch sm_90 -k tile_q=17": "--knob tile_q=17: expected one of 16, 32, 64, 128",
    "build --base phase4 --arch sm_90 -k tile_q=128 -k consumer_warps=1": "two_row_tiles_at_most: tile_q <= 32",
    "verify --base phase4": "no NVIDIA GPU here to run it; `evo build --arch sm_90` needs none",
    "verify --base cpu_attention --seeds 0": "--seeds 0: expected at least 1",
    "bench --base cpu_attention --iters 2": "--iters 2: expected at least 5",
    "bench --base cpu_attention --iters 99999999999": "expected at least 5, at most 2147483647",
    "profile --base phase4": "--base phase4: no NVIDIA GPU here to run it; `evo build --arch sm_90` needs none",
    "runs --db none.db": "none.db: no such database; `evo search` makes one",
    "runs --db notes.txt": "notes.txt: not a database",
    "runs --limit 0": "--limit 0: expected at least 1",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, for speed: what `main` does with them; a few are tried in processes below."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evo.targets.nvml.gpu_names", list)
    monkeypatch.setattr("evo.setting.gpu_names", list)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["evo", *words.split()])
    (tmp_path / "notes.txt").write_text("not a database\n" * 100)
    for folder in ("search_spaces", "kernels/host"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "kernels/host/attention.cpp").touch()
    shipped = (SHIPPED / "search_spaces/cpu_attention.yaml").read_text()
    (tmp_path / "search_spaces/empty.yaml").write_text(
        shipped.replace("\nrules:\n", "\nrules:\n  never: threads < 1\n")
    )
    (tmp_path / "search_spaces/gate.yaml").write_text(shipped + "\ngates:\n  few: nonsense < 3\n")
    (tmp_path / "search_spaces/launch.yaml").write_text(shipped + "\nlaunch: {grid: [1], block: [32]}\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert captured.err.startswith("evo: ")
    assert captured.err.count("\n") == 1
    assert BAD[words] in captured.err
    assert "Starting Ray" not in captured.out
    assert sorted(tmp_path.iterdir()) == before, "nothing was written"


USAGE = {
    "search --budget abc": "--budget abc: expected a whole number",
    "search --budget=1.5": "--budget 1.5: expected a whole number",
    "search --budget": "option '--budget' requires an argument",
    "search --build-timeout soon": "--build-timeout soon: expected a number",
    "search phase4": "got unexpected extra argument(s) (phase4); `evo search --help` shows what there is",
    "search --causal=3": "option '--causal' does not take a value",
    "replay-trial": "missing argument 'trial'; `evo replay-trial --help`",
    "replay-trial first": "TRIAL: expected a whole number",
    "runs show": "missing argument 'campaign'; `evo runs show --help`",
    "export --base phase4": "missing option '--out' / '-o'; `evo export --help`",
    "bases list all": "got unexpected extra argument(s) (all)",
    "serch": "no such command 'serch'",
    "runs shwo": "no such command 'shwo'",
}
USAGE |= {f"{' '.join(command)} --nosuch": "no such option: --nosuch" for command in COMMANDS}


def run_main(words: str, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Exit code of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["evo", *words.split()])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


@pytest.mark.parametrize("words", USAGE)
def test_words_that_are_not_understood_are_one_line_too(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(words, monkeypatch) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"evo: {USAGE[words]}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("words", ["", "bases", "db"])
def test_a_group_alone_shows_its_help(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(words, monkeypatch) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith(f"Usage: {f'evo {words}'.strip()} [OPTIONS] COMMAND")
    assert captured.err == ""


def test_the_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("--version", monkeypatch) == 0
    assert capsys.readouterr().out == f"evo {__version__}\n"


@pytest.mark.parametrize("words", ["search --base phase44", "runs --db none.db", "search --base phase4 --budget many"])
def test_bad_input_in_a_process_of_its_own(words: str, tmp_path: Path) -> None:
    done = evo(*words.split(), cwd=tmp_path, code=2)
    assert done.stdout == ""
    assert done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_several_lines_is_shown_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evo", "bases", "show", "two\nlines\x1b[31m"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.startswith(r"evo: --base two\nlines\x1b[31m: no such base; ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("export --base phase4 -o /nowhere/champion.h", "/nowhere/champion.h: -o: cannot be written"),
        ("export --base phase4 -o .", ".: -o: is a folder; expected a file"),
        ("export --base phase4 -o pipe", "pipe: -o: is a device or a pipe; expected a file"),
        ("report 1 -o page.pdf", "-o page.pdf: expected a name that ends in .html, .htm, .md, .markdown, or --format"),
        ("export --base phase4 -o results.db", "results.db: -o: is a database; expected another file"),
        ("runs export 1 -o trials.pdf", "-o trials.pdf: expected a name that ends in .csv, .parquet or .json (T4)"),
        ("export --base phase4 -o champion.pdf --format pdf", "--format pdf: expected header, json or t4"),
        ("export --base phase5 -o champion.h", "no elite of base phase5; run: evo search --base phase5"),
        ("export --base phse4 -o champion.h", "no elite of base phse4 (did you mean phase4?)"),
        ("runs show 99", "no campaign 99; `evo runs` lists them"),
        ("promote 1", "campaign 1 was replayed"),
        ("record 1", "campaign 1 was replayed"),
        ("search --base phase4 --target replay --resume", "has no unfinished campaign of phase4"),
    ],
)
def test_bad_input_beside_a_database_is_one_line_too(
    played: Path, words: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(played)
    if not Path("pipe").exists():
        os.mkfifo("pipe")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["evo", *words.split()])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert not list(played.glob("*.pdf"))


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("", None)])
def test_times_are_read_with_their_units(text: str, seconds: float | None) -> None:
    assert cli.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0", "0s", "-1m", "1d", "ten", f"{'9' * 400}h"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--time-limit"):
        cli.parse_duration(text)
