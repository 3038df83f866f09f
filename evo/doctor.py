"""What of GPU, driver, compilers, profilers, disk and database is there, and what its absence costs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evo.errors import InputError

_DISK_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked for."""

    name: str
    ok: bool
    found: str
    cost: str = ""  # of its absence


def examine(db: str) -> list[Finding]:
    """Look at everything; nothing raises, nothing is written."""
    checks: list[Callable[[], Finding]] = [_gpu, _driver, _nvrtc, _cuda_headers, _torch, _ray, _host_compiler, _nvcc]
    findings = [check() for check in checks]
    findings.append(_tool("ncu", "evo profile cannot read hardware counters"))
    findings.append(_tool("compute-sanitizer", "promoted kernels are not checked for races and bad accesses"))
    findings.append(_disk(db))
    findings.append(_database(db))
    return findings


def _gpu() -> Finding:
    from evo.targets.nvml import gpu_names

    names = gpu_names()
    cost = "CUDA bases are played from recordings; the host target tunes for real"
    return Finding("GPU", bool(names), ", ".join(names) or "none", cost)


def _driver() -> Finding:
    from evo.targets.nvml import Monitor

    version = Monitor(None).driver()
    return Finding("driver", bool(version), version or "none", "no kernel can be launched; builds work without")


def _nvrtc() -> Finding:
    try:
        from evo.targets import nvrtc

        return Finding("NVRTC", True, nvrtc.toolchain())
    except Exception as error:  # noqa: BLE001 - a broken binding fails in many ways, all of them the finding
        return Finding("NVRTC", False, f"{type(error).__name__}: {error}", "CUDA templates cannot be built")


def _cuda_headers() -> Finding:
    from evo.targets import nvrtc

    folders = nvrtc.header_folders()
    missing = [h for h in ("cuda_fp16.h", "mma.h") if not any((Path(f) / h).is_file() for f in folders)]
    found = f"missing {', '.join(missing)}" if missing else folders[0]
    return Finding(
        "CUDA headers", not missing, found, "pip install nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl"
    )


def _torch() -> Finding:
    import torch

    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding("PyTorch", True, f"{torch.__version__}, {kind}")


def _ray() -> Finding:
    from importlib.metadata import version

    there = importlib.util.find_spec("ray") is not None
    return Finding("Ray", there, version("ray") if there else "none", "nothing can be built or measured")


def _host_compiler() -> Finding:
    from evo.targets.host import find_compiler

    try:
        found = find_compiler(None)
    except InputError as error:
        return Finding("C++ compiler", False, "none", str(error))
    return Finding("C++ compiler", True, found)


def _nvcc() -> Finding:
    return _tool("nvcc", "examples/cpp cannot be built; searches do not need it")


def _tool(name: str, cost: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name, False, "not on PATH", cost)
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, False, f"{path}: {error}", cost)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    version = next((line for line in lines if "ersion" in line or "release" in line), lines[0] if lines else "")
    return Finding(name, done.returncode == 0, f"{path}  {version}".strip(), cost)


def _disk(db: str) -> Finding:
    folder = (_file(db) or Path.cwd() / "results.db").resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    found = f"{free / 2**30:.1f} GiB free in {folder}{'' if writable else ', not writable'}"
    return Finding("disk", writable and free >= _DISK_BYTES, found, "results.db and Ray's session need about 2 GiB")


def _database(db: str) -> Finding:
    from evo.record import open_record

    cost, path = "results cannot be kept there", _file(db)
    if path is not None and not path.exists():
        return Finding("database", True, f"{db}: not there yet; the first search makes it")
    try:
        with open_record(db, create=False, read_only=True) as record:
            found = f"{record.name}: {len(record.campaigns())} campaigns"  # whose name has no password in it
    except InputError as error:
        return Finding("database", False, str(error), cost)
    if path is not None and not os.access(path, os.W_OK):
        return Finding("database", False, f"{found}, read-only", cost)
    return Finding("database", True, found)


def _file(db: str) -> Path | None:
    """The database's file; None for a server."""
    from evo.record.open import parse_url, sqlite_path

    try:
        return sqlite_path(parse_url(db))
    except InputError:
        return None
