"""compute-sanitizer on one variant, before it is promoted: a process that loads it, launches it, and does nothing else.

Every buffer is an allocation of its own, so that one element too far is outside of it. Run as `python -m evo.sanitize
FILE` this module is that process; FILE is a pickle of variant, binary, workload's name and cases.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evo.outcome import Built, Rejected, Stage
from evo.variant import Variant
from evo.workloads import find_workload

TOOLS: dict[str, tuple[str, ...]] = {
    "memcheck": (),
    "racecheck": ("--print-level", "error"),  # its warnings name hazards that a barrier orders after all
}
NOT_INSTALLED = "not installed"
CASES = 2  # the smallest of those that a search verifies on; a sanitizer slows a kernel a hundredfold
_AT_ONCE = 8  # processes beside one another: each spends most of its time importing
_FOUND = 86  # exit code that the sanitizer is told to use when it found something
_LAUNCHED = "evo: launched"


def find_sanitizer() -> str | None:
    """Path of compute-sanitizer, if there is one."""
    usual = Path("/usr/local/cuda/bin/compute-sanitizer")
    return shutil.which("compute-sanitizer") or (str(usual) if usual.is_file() else None)


def sanitize(
    variant: Variant, built: Built, workload_name: str, case: Any, *, timeout_s: float = 300.0
) -> str | Rejected:
    """Rejected with the tool's words when it finds something; else what was done, in words for the record."""
    program = find_sanitizer()
    if program is None:
        return NOT_INSTALLED
    workload = find_workload(workload_name)
    trials = sorted((trial for trial, _ in workload.trial_cases(case)), key=workload.flops)
    with tempfile.NamedTemporaryFile(prefix="evo-sanitize-") as file:
        pickle.dump((variant, built, workload_name, trials[:CASES]), file)
        file.flush()
        notes = []
        for tool, options in TOOLS.items():
            found = _run(program, tool, options, file.name, timeout_s)
            if isinstance(found, Rejected):
                return found
            notes.append(f"{tool}: {found}")
    return ", ".join(notes)


def sanitize_all(entries: Sequence[tuple[Variant, Built]], workload_name: str, case: Any) -> dict[str, str | Rejected]:
    """`sanitize` of several variants side by side, by key."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda entry: sanitize(entry[0], entry[1], workload_name, case), entries)
        return {variant.key: verdict for (variant, _), verdict in zip(entries, found, strict=True)}


def _run(program: str, tool: str, options: Sequence[str], file: str, timeout_s: float) -> str | Rejected:
    command = [program, "--tool", tool, "--error-exitcode", str(_FOUND), "--print-limit", "10", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            [*command, sys.executable, "-m", "evo.sanitize", file],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be run ({type(error).__name__})"
    words = done.stdout + done.stderr
    return judge_run(tool, done.returncode, words)


def judge_run(tool: str, code: int, words: str) -> str | Rejected:
    """What one run of a tool says: a finding refuses, a tool that could not do its work does not."""
    findings = [line.removeprefix("=========").strip() for line in words.splitlines() if line.startswith("=========")]
    if code == _FOUND:
        told = [
            line for line in findings if line and not line.startswith(("COMPUTE-SANITIZER", "Saved host", "Host Frame"))
        ]
        return Rejected(Stage.VERIFY, f"sanitizer:{tool}", "\n".join(told)[:4000])
    if code == 0 and _LAUNCHED in words:
        return "clean"
    last = next((line for line in reversed(words.splitlines()) if line.strip()), "no words")
    return f"could not be run (exit code {code}: {last.strip()[:200]})"


def main() -> None:
    """Launch the variant once on each case."""
    from evo.targets.alone import launch_alone

    variant, built, workload_name, cases = pickle.loads(Path(sys.argv[1]).read_bytes())
    launch_alone(variant, built, find_workload(workload_name), cases)
    print(_LAUNCHED, len(cases), flush=True)


if __name__ == "__main__":
    main()
