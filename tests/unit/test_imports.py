"""The rules of the house: imports run one way, and each heavy library has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "evo").rglob("*.py"))
}
APART = ("evo.targets.replay",)  # plays a whole fleet, so it stands above the rooms whose part it plays
BELOW = {  # a room -> all of ours that it may import when it is loaded
    "errors": "",
    "outcome": "",
    "expression": "errors",
    "knob": "errors expression",
    "enumeration": "errors expression knob",
    "space": "enumeration errors expression knob",
    "workloads": "errors",
    "base": "errors expression outcome space workloads",
    "variant": "base errors expression outcome space",
    "sweeper": "",
    "targets": "base errors expression outcome space sweeper variant workloads",
    "search": "errors expression knob outcome space",
    "measure": "errors outcome targets workloads",
    "verify": "errors outcome targets workloads",
    "record": "errors outcome space variant",
}


def imported(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at the top of the file) for every import in a file, those for types only left out."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.append((child.module, top))
                found.extend((f"{child.module}.{alias.name}", top) for alias in child.names)
            visit(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def users(library: str) -> set[str]:
    """Modules that import this library anywhere."""
    return {name for name, path in FILES.items() if any(m.split(".")[0] == library for m, _ in imported(path))}


def room(module: str) -> str:
    """The room of a module: evo.record.queries -> record."""
    return module if module in APART else ".".join(module.split(".")[1:2])


def test_only_the_fleet_imports_ray() -> None:
    assert users("ray") == {"evo.cluster", "evo.fleet", "evo.seats"}


def test_only_the_record_imports_sqlalchemy() -> None:
    assert {name.split(".")[1] for name in users("sqlalchemy") | users("alembic")} <= {"record", "migrations"}


def test_only_the_adapters_import_optuna() -> None:
    assert {room(name) for name in users("optuna")} <= {"search", "interchange", "dashboard"}


def test_the_cuda_driver_is_called_only_by_targets() -> None:
    """And by the op, which must be quick, and by what compute-sanitizer watches, which must do nothing else."""
    assert {room(name) for name in users("cuda") | users("pynvml")} <= {"targets", "ops", "sanitize"}


@pytest.mark.parametrize("name", [name for name in FILES if room(name) in BELOW])
def test_the_lower_rooms_import_only_from_below(name: str) -> None:
    allowed = {*BELOW[room(name)].split(), room(name), ""}
    found = {room(module) for module, top in imported(FILES[name]) if top and module in FILES}
    assert found <= allowed, f"{name} imports {', '.join(sorted(found - allowed))} from above"


def test_nothing_below_knows_the_street_door() -> None:
    for name, path in FILES.items():
        if room(name) not in ("cli", "dashboard", "__main__"):
            above = {module for module, _ in imported(path) if module in ("evo.cli", "evo.dashboard")}
            assert not above, f"{name} imports {above}"


def test_there_are_no_circles_between_rooms() -> None:
    graph: dict[str, set[str]] = {}
    for name, path in FILES.items():
        others = {room(module) for module, top in imported(path) if top and module in FILES}
        graph.setdefault(room(name), set()).update(others - {room(name), "", "__version__"})
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in sorted(graph.get(name, ())):
                walk(other, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("evo.cli", "torch ray optuna sqlalchemy numpy yaml rich.live"),
        ("evo.targets.nvrtc", "torch ray optuna sqlalchemy"),  # what a builder of cuda variants loads
        ("evo.targets", "torch ray optuna sqlalchemy cuda"),
        ("evo.worker", "ray sqlalchemy optuna"),
        ("evo.fleet", "torch sqlalchemy optuna"),  # what a seat's actor and a builder load
        ("evo.tune", "torch ray optuna"),
        ("evo.targets.replay", "torch ray sqlalchemy optuna"),
        ("evo.search", "torch ray optuna sqlalchemy cuda"),
        ("evo.record", "torch ray optuna cuda"),
        ("evo.present", "torch ray optuna sqlalchemy"),
    ],
)
def test_a_module_does_not_load_what_it_does_not_need(module: str, absent: str) -> None:
    code = f"import sys, {module}; print(' '.join(m for m in {absent.split()!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""


def test_proposers_see_no_device_file_or_table() -> None:
    for name, path in FILES.items():
        if name.startswith("evo.search"):
            seen = {module.split(".")[0] for module, _ in imported(path)}
            assert not seen & {"torch", "cuda", "ray", "sqlalchemy", "sqlite3", "pathlib", "os", "subprocess"}, name
