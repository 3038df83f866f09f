"""The process that owns a device: verifies and measures what its seat sends, until the wire closes.

It is forked from a nursery that has imported all this, and what a kernel does to it is the seat's to notice.
"""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from evo.errors import InputError
from evo.evaluate import Bench
from evo.outcome import Rejected, Stage
from evo.seat import Fatal, Ready, Right, WorkerSpec
from evo.targets import LaunchError, make_target
from evo.workloads import find_workload

_OUTPUT_BYTES = 64 * 2**20  # of what a kernel prints, and of every file that it writes


def serve(descriptor: int) -> None:
    """Warm up, wait to be activated, then answer until the wire closes."""
    wire = Connection(descriptor)

    def reply(word: Any) -> None:
        wire.send_bytes(pickle.dumps(word))

    spec: WorkerSpec = pickle.loads(wire.recv_bytes())
    _limit(spec)
    bench: Bench | None = None
    refused: InputError | None = None
    try:
        target = make_target(spec.target, arch=spec.arch)
        bench = Bench(target, find_workload(spec.workload), spec.case, spec.timing)
    except InputError as error:
        refused = error
    while True:
        try:
            kind, *rest = pickle.loads(wire.recv_bytes())
        except (EOFError, OSError):
            return
        if bench is None:
            reply(refused)
            return
        try:
            reply(_answer(bench, kind, rest, lambda: reply(Right())))
        except InputError as error:
            reply(error)
        except LaunchError as error:
            reply(Fatal(Rejected(Stage.CRASH, error.reason, error.detail)))
            os._exit(1)  # a poisoned context may hang an orderly exit


def _answer(bench: Bench, kind: str, rest: list[Any], tell_right: Callable[[], None]) -> Any:
    if kind == "evaluate":
        return bench.evaluate(*rest, tell_right=tell_right)
    if kind == "verify":
        return bench.verify_fully(*rest)
    if kind == "contest":
        return bench.contest(rest[0], rounds=rest[1])
    case, anchor = rest
    bench.turn_to(case)
    baselines = bench.choose_anchor(anchor)
    return Ready(bench.facts(), baselines, bench.anchor_name, bench.target.toolchain(), str(torch.__version__))


def _limit(spec: WorkerSpec) -> None:
    """Bound what a kernel can take from the machine: no core files, no endless output, no endless memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT_BYTES, _OUTPUT_BYTES))
    if spec.target == "host":  # a CUDA driver maps far more than it uses
        from evo.targets.host import worker_bytes

        limit = spec.memory_bytes or worker_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
