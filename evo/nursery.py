"""The seat's side of its nursery, the process that forks workers (`evo.births`): asks for them, hears of their ends."""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

MESSAGE_BYTES = 4096
SEEN = b"seen"  # a nursery's first word to the seat that has come to it
_ANSWER_S = 5.0
# PyTorch's idle threads spin: without end they hold the cores that builders and a kernel's own threads need; for a
# while only, they make a call of microseconds take milliseconds on a busy machine. So they sleep. What their waking
# costs is no kernel's gain: a call on one thread, which wakes none, is a baseline too.
_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


class NurseryLost(Exception):
    """The nursery ended or did not answer; the text holds its last words."""


def address(place: str) -> str:
    """The name under which the nursery of a place in a fleet is found on its machine: no file, this machine only."""
    return f"\0evo-nursery-{place}"


class Nursery:
    """The nursery that a lost seat of this place has left behind, or a new one.

    place: a secret name in the fleet; without one the nursery ends with this process.
    """

    def __init__(self, target: str, place: str = "") -> None:
        self._target, self._place, self._lingers = target, place or secrets.token_hex(8), bool(place)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._ends: dict[int, int] = {}  # pid -> exit code of children that ended
        self._process: subprocess.Popen[bytes] | None = None
        self._answered = self._lingers and self._find()
        if not self._answered:
            self._start()

    def renew(self) -> None:
        """Come back to a nursery that was lost and born again; start another if it was not."""
        self._wire.close()
        self._ends.clear()
        if not self._find():
            self._end()
            self._start()

    def _start(self) -> None:
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own = [str(theirs.fileno()), str(os.getpid()), self._target, self._place, "lingers" if self._lingers else ""]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "evo.births", *own],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env={**_THREADS, **os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                start_new_session=True,
            )
        self.pid, self._answered = self._process.pid, False

    def _find(self) -> bool:
        """Whether there is a nursery of this place; its children will see this process's device."""
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wire.settimeout(_ANSWER_S)
        try:
            wire.connect(address(self._place))
            pid, user, _ = struct.unpack("3i", wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if user == os.getuid() and wire.recv(MESSAGE_BYTES) == SEEN:
                environment = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
                socket.send_fds(wire, [pickle.dumps(("seat", environment))], [self._errors.fileno()])
                self._wire, self.pid = wire, pid
                return True
        except OSError:
            pass
        wire.close()
        return False

    def fork(self, wire: int, errors: int, limit_s: float) -> int:
        """A new child that serves the file descriptor `wire`; returns its pid. Raises: NurseryLost."""
        try:
            socket.send_fds(self._wire, [pickle.dumps(("fork", {}))], [wire, errors])
        except OSError:
            raise NurseryLost(self._last_words()) from None
        deadline = time.monotonic() + limit_s
        while True:
            kind, pid = self._hear(deadline)
            if kind == "born":
                self._answered = True
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
        self._end()
        self._wire.close()
        self._errors.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _hear(self, deadline: float) -> tuple[str, int]:
        self._wire.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            message = self._wire.recv(MESSAGE_BYTES)
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
        code = None
        if self._process is not None and not self._answered:  # it could not even begin
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=_ANSWER_S)
        return f"the nursery ended (exit code {code}): {tail(self._errors.fileno())}"


def tail(descriptor: int, most: int = 2000) -> str:
    """The end of a file as text, without moving the offset that its writer shares."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, most, max(0, size - most)).decode(errors="replace").strip()
