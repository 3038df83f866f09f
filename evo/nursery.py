"""A process that has imported all that workers need and forks them: a new worker is there in milliseconds.

Importing torch takes seconds; a fork of a process that has done so takes none. The nursery itself uses no device and
starts no thread, so its children start clean. It tells its seat how each child ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES = 4096


class NurseryLost(Exception):
    """The nursery ended or did not answer; the text holds its last words."""


class Nursery:
    """The seat's side: asks for children and hears of their ends."""

    def __init__(self, target: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "evo.nursery", str(theirs.fileno()), str(os.getpid()), target],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                start_new_session=True,
            )
        self._wire = ours
        self._ends: dict[int, int] = {}  # pid -> exit code of children that ended

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, wire: int, errors: int, limit_s: float) -> int:
        """A new child that serves the file descriptor `wire`; returns its pid. Raises: NurseryLost."""
        try:
            socket.send_fds(self._wire, [b"fork"], [wire, errors])
        except OSError:
            raise NurseryLost(self._last_words()) from None
        deadline = time.monotonic() + limit_s
        while True:
            kind, pid = self._hear(deadline)
            if kind == "born":
                return pid

    def exit_code(self, pid: int, limit_s: float) -> int | None:
        """How a child ended, negative for a signal; None when that is not known within `limit_s`."""
        deadline = time.monotonic() + limit_s
        with contextlib.suppress(NurseryLost):
            while pid not in self._ends:
                self._hear(deadline)
        return self._ends.pop(pid, None)

    def fileno(self) -> int:
        """To wait for news."""
        return self._wire.fileno()

    def listen(self) -> bool:
        """Take in one piece of news that has come; False when the nursery is gone."""
        try:
            self._hear(time.monotonic())
        except NurseryLost:
            return False
        return True

    def has_ended(self, pid: int) -> bool:
        return pid in self._ends

    def close(self) -> None:
        """End the nursery; its children end with it."""
        self._process.kill()
        self._process.wait()
        self._wire.close()
        self._errors.close()

    def _hear(self, deadline: float) -> tuple[str, int]:
        self._wire.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            message = self._wire.recv(_MESSAGE_BYTES)
        except TimeoutError:
            raise NurseryLost("the nursery does not answer") from None
        except OSError:
            message = b""
        if not message:
            raise NurseryLost(self._last_words())
        kind, pid, status = pickle.loads(message)
        if kind == "gone":
            self._ends[pid] = os.waitstatus_to_exitcode(status)
        return kind, pid

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        return f"the nursery ended (exit code {self._process.poll()}): {tail(self._errors.fileno())}"


def tail(descriptor: int, most: int = 2000) -> str:
    """The end of a file as text, without moving the offset that its writer shares."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, most, max(0, size - most)).decode(errors="replace").strip()


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies; end now if it has died already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Import, then fork on demand and tell of every end, until the seat is gone."""
    descriptor, parent, target = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    serve = _imported(target)
    gc.collect()
    gc.freeze()  # so that collections in the children leave these pages shared
    wire = socket.socket(fileno=descriptor)
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    woken.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(wire, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    nursery = os.getpid()
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                woken.recv(4096)
            _tell_ends(wire)
        if wire in ready:
            message, descriptors, _, _ = socket.recv_fds(wire, _MESSAGE_BYTES, 2)
            if not message:
                return
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for own in (wire, woken, waker):
                    own.close()
                selector.close()
                _live(nursery, descriptors, serve)
            for descriptor in descriptors:
                os.close(descriptor)
            wire.send(pickle.dumps(("born", child, 0)))


def _imported(target: str) -> Callable[[int], None]:
    """Everything a worker imports that touches no device."""
    import torch.nn.attention

    import evo.verify
    import evo.workloads.attention
    from evo.worker import serve

    if target == "host":
        import evo.targets.host

    del torch, evo
    return serve


def _tell_ends(wire: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        wire.send(pickle.dumps(("gone", pid, status)))


def _live(nursery: int, descriptors: list[int], serve: Callable[[int], None]) -> Any:
    """The child's whole life; never returns."""
    code = 1
    try:
        die_with(nursery)
        os.setsid()  # a group of its own, so that what a kernel starts can be ended with it
        wire, errors = descriptors
        for stream in (1, 2):
            os.dup2(errors, stream)
        os.close(errors)
        serve(wire)
        code = 0
    except BaseException:  # noqa: BLE001 - the traceback goes where the seat reads it
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
