"""What the studies of the kernels are about, how their JSON begins and how it is written."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evo.provenance import describe_environment, git_state
from evo.targets import Target
from evo.targets.host import HostTarget
from evo.targets.processor import cores

ROOT = Path(__file__).resolve().parents[1]
PHASES = ("phase0", "phase1", "phase2", "phase3", "phase4", "phase5")
CASES = ("mission", "mission-causal", "multi_batch", "tiny", "small", "medium", "large", "long")


def opening(study: str, target: Target) -> dict[str, Any]:
    """The study's name, now, and where its numbers come from."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"study": study, "date": now, "environment": environment_of(target)}


def environment_of(target: Target, sources: Path = ROOT) -> dict[str, Any]:
    """Device, toolchain, PyTorch, and the commit of the repository that `sources` lies in."""
    import torch

    return asdict(describe_environment(target.facts(), target.toolchain(), str(torch.__version__), sources))


def this_machine() -> dict[str, Any]:
    """Processor, cores, Python, commit and date of a study that needs no target."""
    state = git_state(ROOT)
    return {
        "processor": HostTarget().facts().name,
        "cores": cores(),
        "python": platform.python_version(),
        "commit": state.sha + ("-dirty" if state.dirty else ""),
        "date": datetime.now(UTC).date().isoformat(),
    }


def machine_words(report: Mapping[str, Any]) -> str:
    """The same as a table's last line."""
    commit = f"{report['commit'][:12]}{' with uncommitted changes' if report['commit'].endswith('-dirty') else ''}"
    where = f"{report['processor']}, {report['cores']} cores, Python {report['python']}"
    return f"{where}, {report['date']}, commit {commit}.\n"


def write_report(path: Path, report: Any) -> None:
    """Write a report as JSON; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def show_report(report: Any, path: Path | None) -> None:
    """Print a report, and write it where a path is given."""
    if path is not None:
        write_report(path, report)
    print(json.dumps(report, indent=1))
