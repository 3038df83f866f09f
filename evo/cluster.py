"""The Ray that a fleet runs on: a cluster that is there, or one of our own on this machine.

Our own listens on the loopback interface only and leaves nothing behind (see `evo.sweeper`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ray

from evo.errors import InputError
from evo.sweeper import Sweeper

_STARTS = 3  # tries to start Ray on a machine that is busy
# Ray 2.60 asks for a token wherever ~/.ray/auth_token exists, and shows it to a given address only when told to.
_WITH_TOKEN = "one that asks for a token is joined with RAY_AUTH_MODE=token and its token in ~/.ray/auth_token"
_UNUSED = ("start_monitor", "start_log_monitor", "start_api_server")  # Ray's autoscaler, log tailing and dashboard
_STORE_BYTES = 256 * 2**20  # Ray's object store: binaries pass through it, nothing large


@dataclass(slots=True)
class Cluster:
    """A connection to Ray; none of its own where this process has one already."""

    address: str | None = None
    connected: bool = field(init=False, default=False)  # by this object, which then also ends the connection
    _sweeper: Sweeper | None = field(init=False, default=None)

    def join(self) -> None:
        """Connect, or start a Ray on this machine. Raises: InputError when none can be reached."""
        if ray.is_initialized():
            return
        for start in range(_STARTS):
            try:
                self._start()
                break
            except Exception as error:  # noqa: BLE001 - Ray raises bare ones when a node is not up within its 30 s
                ray.shutdown()
                self._sweep()
                if self.address or start == _STARTS - 1:
                    where = f"--ray-address {self.address}" if self.address else "Ray on this machine"
                    hint = f"; {_WITH_TOKEN}" if self.address else ""
                    raise InputError(f"{where} does not answer: {first_line(error)}{hint}") from None
        self.connected = True

    def leave(self) -> None:
        """Disconnect; a Ray that was started here ends and goes with its folder."""
        if self.connected:
            ray.shutdown()
            self.connected = False
        self._sweep()

    def _start(self) -> None:
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self.address:
            ray.init(address=self.address, **quiet)
            return
        self._sweeper = Sweeper()
        with _alone():
            ray.init(
                include_dashboard=False,
                num_cpus=max(2, os.cpu_count() or 2),
                object_store_memory=_STORE_BYTES,
                _temp_dir=str(self._sweeper.folder),
                **quiet,
            )

    def _sweep(self) -> None:
        if self._sweeper is not None:
            self._sweeper.sweep()
            self._sweeper = None


def seats_of(target: str, gpu_type: str | None) -> tuple[int, dict[str, Any]]:
    """How many seats the cluster has room for, and what each asks of Ray.

    Raises: InputError when there is no GPU, or none of that type.
    """
    if target != "cuda":
        return 1, {"num_cpus": 1}
    resources = ray.cluster_resources()
    options: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1}
    count = int(resources.get("GPU", 0))
    if gpu_type:
        kinds = sorted(name.split(":", 1)[1] for name in resources if name.startswith("accelerator_type:"))
        if gpu_type not in kinds:
            there = f"one of {', '.join(kinds)}" if kinds else "a GPU's type; this Ray cluster has no GPU"
            raise InputError(f"--gpu-type {gpu_type}: expected {there}")
        options["accelerator_type"] = gpu_type
        count = sum(
            int(node["Resources"].get("GPU", 0))
            for node in ray.nodes()
            if node["Alive"] and f"accelerator_type:{gpu_type}" in node["Resources"]
        )
    if count == 0:
        raise InputError("no GPU in this Ray cluster; --target host or replay works without one")
    return count, options


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let a Ray that is started now bind its servers to 127.0.0.1 alone, and do without processes that one machine has
    no use for: each takes half a second or a whole one of a core, and memory.

    Ray binds to loopback by itself where it does not support clusters (macOS, Windows); elsewhere it replaces a
    loopback address that it is given by the machine's own. The switch is read while the node starts.
    """
    from ray._private import ray_constants
    from ray._private.node import Node

    absent: Any = object()
    changes = [(ray_constants, "ENABLE_RAY_CLUSTER", False), *((Node, starts, _nothing) for starts in _UNUSED)]
    before = [(where, name, getattr(where, name, absent)) for where, name, _ in changes]
    for (where, name, value), (_, _, was) in zip(changes, before, strict=True):
        if was is not absent:
            setattr(where, name, value)
    try:
        yield
    finally:
        for where, name, was in before:
            if was is not absent:
                setattr(where, name, was)


def _nothing(*_: Any, **__: Any) -> None:
    """In place of a method that starts a process."""


def first_line(error: BaseException) -> str:
    """The last line of an error's text, where Ray puts what happened, behind its class."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
