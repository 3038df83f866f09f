"""The process that owns a device, and the seat that keeps one such process alive with a warm spare beside it.

A kernel can crash, hang or poison the CUDA context; only its process can then be trusted to end. So the device is used
in a child process. The seat (one per GPU, or one for the host) speaks to it over a socket pair, gives every call a time
limit, turns a dead or silent child into a `Rejected`, and puts the warm spare in its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from evo.errors import InputError
from evo.evaluate import Bench, Contest
from evo.measure import Timing
from evo.outcome import Built, Measured, Rejected, Stage, Verified
from evo.targets import DeviceFacts, LaunchError, make_target
from evo.variant import Variant
from evo.workloads import find_workload

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker is to be ready for."""

    target: str
    workload: str
    case: Any
    timing: Timing = field(default_factory=Timing)
    arch: str | None = None
    start_s: float = 180.0  # torch, a CUDA context and the baselines' first run
    evaluate_s: float = 30.0
    contest_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker's first word: the device, and the baselines' times on this case."""

    facts: DeviceFacts
    baselines_us: dict[str, float]
    anchor: str
    toolchain: str
    torch: str


class WorkerLost(Exception):
    """The child ended or fell silent; `outcome` says how."""

    def __init__(self, outcome: Rejected) -> None:
        super().__init__(f"{outcome.reason}: {outcome.detail}")
        self.outcome = outcome


class WorkerProcess:
    """One child process and the calls to it."""

    def __init__(self, spec: WorkerSpec) -> None:
        ours, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process; the kernel's and the driver's last words
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evo.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,
        )
        theirs.close()
        self._wire = Connection(ours.detach())
        self.pid = self._process.pid
        self.send(spec)

    def send(self, request: Any) -> None:
        try:
            self._wire.send_bytes(pickle.dumps(request))
        except OSError:
            raise WorkerLost(self._post_mortem()) from None

    def receive(self, limit_s: float) -> Any:
        """The child's next word. Raises: WorkerLost when it dies or does not answer within `limit_s`."""
        try:
            if not self._wire.poll(limit_s):
                raise WorkerLost(Rejected(Stage.TIMEOUT, "hang", f"no answer within {limit_s:g} s"))
            return pickle.loads(self._wire.recv_bytes())
        except (EOFError, OSError):
            raise WorkerLost(self._post_mortem()) from None

    def close(self) -> None:
        """End the child and all that it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._wire.close()
        self._errors.close()

    def _post_mortem(self) -> Rejected:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return Rejected(Stage.CRASH, "wire_closed")
        self._errors.seek(0)
        words = self._errors.read()[-2000:].decode(errors="replace").strip()
        name = signal.Signals(-code).name if code < 0 else f"exit_{code}"
        return Rejected(Stage.CRASH, name, words)


class Seat:
    """One device's place in the fleet: a worker in use and a warm spare.

    Raises: InputError from the constructor when the device cannot serve at all.
    """

    def __init__(self, spec: WorkerSpec, *, spare: bool = True) -> None:
        self.spec, self._keeps_spare = spec, spare
        self._anchor = ""
        self._worker = WorkerProcess(spec)
        try:
            self.ready = self._activate(self._worker)
        except WorkerLost as lost:
            last = (lost.outcome.detail.splitlines() or [""])[-1]
            raise InputError(f"the worker did not start ({lost.outcome.reason}): {last[:600]}") from None
        self._anchor = self.ready.anchor
        self._spare: WorkerProcess | None = None
        self._raise_spare()

    def about(self) -> tuple[Ready, str, int]:
        """(what the device is, this machine's name, pid of the worker in use)"""
        return self.ready, socket.gethostname(), self._worker.pid

    def turn_to(self, case: Any) -> Ready:
        """Serve another case of the same workload from now on. Raises: InputError when the device cannot."""
        self.spec, self._anchor = replace(self.spec, case=case), ""
        try:
            self.ready = self._activate(self._worker)
        except WorkerLost as lost:
            raise InputError(f"the worker did not take case {case.name}: {lost}") from None
        self._anchor = self.ready.anchor
        return self.ready

    def evaluate(self, variant: Variant, built: Built, best_us: float | None) -> Measured | Rejected:
        """Verify and measure one variant; whatever it does to the process becomes a `Rejected`."""
        return self._call(("evaluate", variant, built, best_us), self.spec.evaluate_s)  # type: ignore[no-any-return]

    def contest(self, entries: Sequence[tuple[Variant, Built]], rounds: int) -> Contest | Rejected:
        return self._call(("contest", list(entries), rounds), self.spec.contest_s)  # type: ignore[no-any-return]

    def verify(self, variant: Variant, built: Built, seeds: int) -> Verified | Rejected:
        """Check one variant on every case of the workload, `seeds` fresh seeds each."""
        return self._call(("verify", variant, built, seeds), self.spec.contest_s)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._worker.close()
        if self._spare is not None:
            self._spare.close()

    def _call(self, request: Any, limit_s: float) -> Any:
        try:
            self._worker.send(request)
            reply = self._worker.receive(limit_s)
        except WorkerLost as lost:
            self._replace()
            return lost.outcome
        if isinstance(reply, _Fatal):  # the child ends itself: its CUDA context is not to be used again
            self._replace()
            return reply.outcome
        return reply

    def _replace(self) -> None:
        """Put the spare in the dead worker's place; try afresh a few times if it does not come up."""
        self._worker.close()
        for attempt in range(3):
            candidate, self._spare = self._spare or WorkerProcess(self.spec), None
            try:
                self._activate(candidate)
            except WorkerLost:
                candidate.close()
                time.sleep(attempt)
                continue
            self._worker = candidate
            self._raise_spare()
            return
        raise RuntimeError("the device's worker could not be started again")

    def _activate(self, worker: WorkerProcess) -> Ready:
        worker.send(("activate", self.spec.case, self._anchor))
        reply = worker.receive(self.spec.start_s)
        if isinstance(reply, InputError):
            raise reply
        if isinstance(reply, _Fatal):
            raise WorkerLost(reply.outcome)
        assert isinstance(reply, Ready)
        return reply

    def _raise_spare(self) -> None:
        if self._keeps_spare:
            self._spare = WorkerProcess(self.spec)


@dataclass(frozen=True, slots=True)
class _Fatal:
    """The outcome of a call after which the child ends."""

    outcome: Rejected


def main() -> None:
    """The child: warm up, wait to be activated, then answer until the wire closes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive the seat
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    if os.getppid() == 1:
        return
    wire = Connection(int(sys.argv[1]))

    def reply(word: Any) -> None:
        wire.send_bytes(pickle.dumps(word))

    spec: WorkerSpec = pickle.loads(wire.recv_bytes())
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
            reply(_answer(bench, kind, rest))
        except InputError as error:
            reply(error)
        except LaunchError as error:
            reply(_Fatal(Rejected(Stage.CRASH, error.reason, error.detail)))
            os._exit(1)  # a poisoned context may hang an orderly exit


def _answer(bench: Bench, kind: str, rest: list[Any]) -> Any:
    if kind == "evaluate":
        return bench.evaluate(*rest)
    if kind == "verify":
        return bench.verify_fully(*rest)
    if kind == "contest":
        return bench.contest(rest[0], rounds=rest[1])
    import torch

    case, anchor = rest
    bench.turn_to(case)
    baselines = bench.choose_anchor(anchor)
    return Ready(bench.facts(), baselines, bench.anchor_name, bench.target.toolchain(), torch.__version__)


if __name__ == "__main__":
    # run under its importable name, so that what it pickles is what the seat unpickles
    from evo.worker import main as run

    threading.current_thread().name = "evo-worker"
    run()
