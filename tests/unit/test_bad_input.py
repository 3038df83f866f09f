"""Bad input on the command line: one line that names what was expected, exit code 2, nothing half written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from evo import __version__, cli
from evo.base import SHIPPED
from evo.errors import InputError
from tests.command_line import COMMANDS, evo, run_main

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
