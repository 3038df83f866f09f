"""What the documents name exists, what they show runs, and their tables say what the committed JSON says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from benchmarks import tables, throughput
from evo.base import base_paths, find_base
from evo.cli import app
from evo.record import Interval

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PATHS = re.compile(r"`((?:evo|kernels|search_spaces|recordings|tests|benchmarks|docker|docs|examples)/[\w./-]*)`")
LINKS = re.compile(r"\]\(([^)#:]+)\)")
COMMANDS = re.compile(r"(?:^|[`$&| ])(evo (?:[a-z][\w-]*)[^`\n#|&]*)", re.MULTILINE)
SHOWN = re.compile(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", re.DOTALL)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def shown(text: str) -> str:
    """Code of a document: fenced blocks and inline code."""
    fenced = re.findall(r"^```(?:bash|text|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*fenced, *re.findall(r"`(evo [^`\n]+)`", rest)])


@pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_file_and_link_that_is_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    example = {name for name, _ in SHOWN.findall(text)}
    for name in PATHS.findall(text):
        if name != "docs/images" and not any(made.startswith(name) for made in example):
            assert (ROOT / name).exists(), name
    for link in LINKS.findall(text):
        assert (path.parent / link).exists(), link


def test_every_module_has_its_room_in_the_design() -> None:
    rooms = re.findall(r"`(evo/[\w/*.]+)`", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
    named = {str(path.relative_to(ROOT)) for room in rooms for path in ROOT.glob(room)}
    there = [path for path in (ROOT / "evo").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert {str(path.relative_to(ROOT)) for path in there} - named == {"evo/__init__.py"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_command_and_option_that_is_shown_exists(path: Path) -> None:
    bases = {*base_paths(), "NAME", *(Path(name).stem for name, _ in SHOWN.findall(path.read_text()))}
    for line in COMMANDS.findall(shown(path.read_text(encoding="utf-8"))):
        words = shlex.split(line.strip().rstrip(".,;:)"))[1:]
        command: Any = typer.main.get_command(app)
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, f"{line!r}: no such command"
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        for word in words:
            if word.startswith("-"):
                assert word in options | {"--help"}, f"{line!r}: no option {word}"
        if "--base" in words:
            assert words[words.index("--base") + 1] in bases, line


def test_the_readme_opens_with_the_two_commands() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks[:2] == [
        "python3 -m venv .venv && . .venv/bin/activate && pip install -e . && evo search --base phase4\n",
        '. .venv/bin/activate && pip install -e ".[test]" && pytest\n',
    ]
    assert (ROOT / ".ci/run").read_text().endswith('\npip install -e ".[test]" && pytest\n')
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    command: Any = typer.main.get_command(app)
    for name, found in command.commands.items():
        inner = [f"{name} {word}" for word in getattr(found, "commands", ())]
        if not inner or found.invoke_without_command:
            inner.append(name)
        for words in (f"`evo {word}`" for word in inner):
            assert words in text, f"README: Commands: expected {words}"


def test_the_yaml_in_the_readme_is_a_base_as_far_as_it_goes() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert {"template", "workload", "entry", "knobs", "rules", "launch"} == yaml.safe_load(block).keys()


@pytest.mark.parametrize("path", DOCUMENTS, ids=names(DOCUMENTS))
def test_tables_say_what_the_committed_results_say(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == tables.filled(path), "run: python -m benchmarks.tables"


def test_every_table_has_a_place_and_every_place_a_table() -> None:
    places = [name for path in DOCUMENTS for name in re.findall(r"<!-- table: (\w+) -->", path.read_text())]
    assert sorted(places) == sorted(tables.TABLES)
    assert len(places) == sum(path.read_text().count("<!-- end -->") for path in DOCUMENTS)


def test_committed_results_name_their_machine_and_commit() -> None:
    for path in sorted((ROOT / "benchmarks/results").glob("*.json")):
        report = json.loads(path.read_text())
        if report.get("format") == "evo_throughput":
            assert all(report[key] for key in ("device", "date", "commit", "cores", "case")), path
            assert report["contest"]["warm"], path


REPORT: dict[str, Any] = {
    "base": "phase4",
    "case": "mission",
    "dtype": "float16",
    "device": "Example GPU",
    "arch": "sm_00",
    "driver": "1.2",
    "torch": "2.0",
    "cores": 16,
    "date": "2026-01-02",
    "commit": "0123456789abcdef",
    "dirty": False,
    "search": {
        "admissible": 12345,
        "evaluated": 300,
        "valid": 290,
        "rejected": {"gates: no_spills": 10},
        "per_s": 12.34,
        "per_s_after_first": None,
        "first_row_s": 1.0,
    },
    "busy": {"share": 0.71, "builders": 15, "builders_share": 0.5},
    "contest": {
        "rounds": 100,
        "anchor": "flash",
        "warm": [
            {
                "contender": "elite 1",
                "kind": "elite",
                "p50_us": 6.0,
                "low_us": 5.9,
                "high_us": 6.1,
                "ratios": {"flash": {"ratio": 2.0, "low": 1.9, "high": 2.1}},
            },
            {"contender": "flash", "kind": "baseline", "p50_us": 12.0, "low_us": 11.9, "high_us": 12.1},
        ],
        "cold": [{"contender": "elite 1", "kind": "elite", "p50_us": 8.0, "low_us": 7.9, "high_us": 8.1}],
    },
}


def test_a_contest_becomes_a_table_with_its_origin() -> None:
    text = tables.contest(REPORT)
    assert "| elite 1 | 6.00 us (5.90 to 6.10) | 8.00 us (7.90 to 8.10) | 2.00 (1.90 to 2.10) |" in text
    assert "| flash | 12.00 us (11.90 to 12.10) | - | - |" in text
    assert "Example GPU (sm_00, driver 1.2), 16 CPU cores, PyTorch 2.0, 2026-01-02, commit 0123456789ab." in text


def test_a_rate_becomes_a_table() -> None:
    text = tables.throughput(REPORT)
    assert "| variants per second, proposal to recorded row | 12.3 |" in text
    assert "| device at work | 71 % |" in text
    assert "| the same, from the first row on | - |" in text


def test_rates_and_shares_of_a_search_are_read_off_its_rows_and_intervals() -> None:
    rates = throughput.rates(100.0, [102.0, 103.0, 104.0])
    assert rates == {"elapsed_s": 4.0, "first_row_s": 2.0, "per_s": 0.75, "per_s_after_first": 1.0}
    intervals = [
        Interval("gpu", "verify", 100.0, 101.0),
        Interval("gpu", "measure", 100.5, 102.0),
        Interval("gpu", "measure", 103.0, 109.0),
        Interval("builder 1", "build", 90.0, 101.0),
    ]
    busy = throughput.busy_shares(intervals, [102.0, 104.0])
    assert busy["share"] == pytest.approx(0.75)
    assert busy["builders_share"] == pytest.approx(0.25)
    assert throughput.busy_shares([], [])["share"] is None


def test_replayed_times_are_never_written_as_a_benchmark(tmp_path: Path) -> None:
    from evo.errors import InputError
    from evo.setting import SearchRequest

    request = SearchRequest(base="phase4", target="replay", budget=3, db=str(tmp_path / "results.db"))
    with pytest.raises(InputError, match="not measurements"):
        throughput.study(request)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ installed")
@pytest.mark.timeout(590)
def test_the_worked_example_is_right_and_every_command_of_it_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs/add_a_kernel.md").read_text()
    for name, content in SHOWN.findall(text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    base = find_base(str(tmp_path / "search_spaces/my_attention.yaml"))
    assert base.space({"head_dim": 64, "causal": False, "dtype": "float32"}).size == 20
    (block,) = re.findall(r"## Look.*?```bash\n(.*?)```", text, re.DOTALL)
    commands = block.splitlines()
    assert len(commands) == 5
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] == "search":
            words += ["--no-proof", "--rounds", "30", "--json"]  # the proof has tests of its own
        done = subprocess.run(
            [sys.executable, "-m", "evo.cli", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if words[0] == "search":
            document = json.loads(done.stdout)
            assert document["valid"] == document["evaluated"] == 12
    assert "kKeyBlock" in (tmp_path / "my_attention.h").read_text()
