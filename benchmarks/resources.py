"""What the default of every phase needs: registers, spills, shared memory, barriers, as the assembler reports them.

Builds with NVRTC, no GPU needed; prints a markdown table and writes JSON.

    python benchmarks/resources.py --output benchmarks/results/resources.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evo.base import base_paths, find_base
from evo.outcome import Rejected
from evo.provenance import git_state
from evo.targets import nvrtc
from evo.variant import make_variant
from evo.workloads import find_workload

ARCHES = ("sm_89", "sm_90")
HEAD_DIMS = {64: "mission", 128: "1x8x512x128"}  # head size -> case built for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", "-o", type=Path, default=Path("benchmarks/results/resources.json"))
    parser.add_argument("--dtype", default="float16")
    options = parser.parse_args()
    report = collect(options.dtype)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(table(report))


def collect(dtype: str) -> dict[str, Any]:
    """The resources of every phase's default on every architecture and head size, and where they come from."""
    state = git_state(Path(__file__).resolve().parent)
    return {
        "format": "evo_resources",
        "toolchain": nvrtc.toolchain(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": state.sha + ("-dirty" if state.dirty else ""),
        "dtype": dtype,
        "results": [
            resources(name, arch, head_dim, dtype)
            for name in sorted(base_paths())
            if find_base(name).language == "cuda"
            for head_dim in HEAD_DIMS
            for arch in ARCHES
        ],
    }


def resources(name: str, arch: str, head_dim: int, dtype: str) -> dict[str, Any]:
    """One build of a base's default, without causal mask."""
    base = find_base(name)
    case = find_workload(base.workload).case(HEAD_DIMS[head_dim], dtype=dtype)
    limits = nvrtc.arch_limits(arch)
    space = base.space({**limits, **case.constants()})
    toolchain = nvrtc.toolchain()
    variant = make_variant(
        base, space, space.default, constants=case.constants(), facts=limits, arch=arch, toolchain=toolchain
    )
    built = nvrtc.build(variant)
    row: dict[str, Any] = {"base": name, "doc": base.doc, "arch": arch, "head_dim": head_dim, "key": variant.key}
    row |= {"configuration": dict(variant.configuration), "threads": variant.values.get("threads")}
    if isinstance(built, Rejected):
        return {**row, "rejected": built.fate}
    return {**row, **asdict(built.resources)}


def table(report: dict[str, Any]) -> str:
    """Markdown: a row for each phase and head size, with the architectures side by side."""
    found = {(row["base"], row["head_dim"], row["arch"]): row for row in report["results"]}
    lines = [
        "| phase | head size | registers "
        + " / ".join(ARCHES)
        + " | spilled bytes | shared memory, KiB | barriers | threads |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, head_dim in dict.fromkeys((row["base"], row["head_dim"]) for row in report["results"]):
        rows = [found[name, head_dim, arch] for arch in ARCHES]
        shared = [_shared_kib(row) for row in rows]
        cells = [
            " / ".join(str(row.get("registers", row.get("rejected"))) for row in rows),
            _merged(rows, "spill_bytes"),
            " / ".join(dict.fromkeys(shared)),
            _merged(rows, "barriers"),
            _merged(rows, "threads"),
        ]
        lines.append(f"| {name} | {head_dim} | " + " | ".join(cells) + " |")
    sha, dirty, _ = report["commit"].partition("-dirty")
    commit = sha[:12] + dirty
    built = f"{report['toolchain'].split(' --')[0]}, {report['dtype']}, no mask, commit {commit}"
    return "\n".join([*lines, "", f"Defaults as shipped; {built}, {report['date']}."])


def _merged(rows: list[dict[str, Any]], key: str) -> str:
    """One number where the architectures agree."""
    return " / ".join(dict.fromkeys(str(row.get(key, "-")) for row in rows))


def _shared_kib(row: dict[str, Any]) -> str:
    if "rejected" in row:
        return "-"
    return f"{(row['shared_bytes'] + row['static_shared_bytes']) / 1024:.1f}"


if __name__ == "__main__":
    main()
