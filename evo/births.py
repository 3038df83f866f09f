"""The nursery's own process: imports all that workers need, then forks them on demand.

Importing torch takes seconds; a fork of a process that has done so takes none. The nursery itself uses no device and
starts no thread, so its children start clean. It tells its seat how each child ended. A nursery of a fleet outlives its
seat by a while: the next seat of that place finds it by its name and has a worker at once.

The processes, from above: the seat, the root that imports, the nursery, a guard for each worker, the worker. Whatever
a kernel kills of its ancestors up to the nursery, the one above puts in its place without importing anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import resource
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import torch.nn.attention  # noqa: F401 - for the children

import evo.workloads.attention  # noqa: F401
from evo.nursery import MESSAGE_BYTES, SEEN, address
from evo.worker import serve

_PR_SET_PDEATHSIG = 1
_LINGER_S = 60.0  # that a nursery waits for a new seat


class _Births:
    """Children, the seat that they are for, and how the nursery hears of both."""

    def __init__(self, wire: socket.socket | None, door: socket.socket, lingers: bool) -> None:
        self.wire, self.door, self.lingers = wire, door, lingers
        self.children: set[int] = set()
        self.woken, self.waker = socket.socketpair()
        for end in (self.woken, self.waker):
            end.setblocking(False)
        signal.set_wakeup_fd(self.waker.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector = selectors.DefaultSelector()
        for ear in (wire, door, self.woken):
            if ear is not None:
                self.selector.register(ear, selectors.EVENT_READ)

    def run(self) -> None:
        """Until the seat is gone and no other has come."""
        alone_since = time.monotonic()
        while self.wire is not None or (self.lingers and time.monotonic() - alone_since < _LINGER_S):
            ready = [key.fileobj for key, _ in self.selector.select(None if self.wire is not None else 1.0)]
            if self.woken in ready:
                with contextlib.suppress(BlockingIOError):
                    self.woken.recv(4096)
                self._tell_ends()
            if self.wire is not None and self.wire in ready and not self._serve_seat(self.wire):
                self._leave_seat()
                alone_since = time.monotonic()
            if self.door in ready:
                self._take_seat()

    def _serve_seat(self, wire: socket.socket) -> bool:
        """One request; False when the seat is gone."""
        try:
            message, descriptors, _, _ = socket.recv_fds(wire, MESSAGE_BYTES, 2)
        except OSError:
            return False
        if not message:
            return False
        kind, environment = pickle.loads(message)
        try:
            if kind == "seat":
                os.environ.update(environment)
                for stream in (1, 2):
                    os.dup2(descriptors[0], stream)
            else:
                child = self._fork(descriptors)
                wire.send(pickle.dumps(("born", child, 0)))
        except BrokenPipeError:
            return False
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, descriptors: list[int]) -> int:
        nursery = os.getpid()
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.selector.close()
            for own in (self.wire, self.door, self.woken, self.waker):
                if own is not None:
                    own.close()
            _guard(nursery, descriptors, serve)
        self.children.add(child)
        return child

    def _tell_ends(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.children.discard(pid)
            if self.wire is not None:
                with contextlib.suppress(OSError):
                    self.wire.send(pickle.dumps(("gone", pid, status)))

    def _take_seat(self) -> None:
        """A new seat of this place: what the one before left is ended. Only this user's own processes may come."""
        wire, _ = self.door.accept()
        _, user, _ = struct.unpack("3i", wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            wire.close()
            return
        self._leave_seat()
        self.wire = wire
        self.selector.register(wire, selectors.EVENT_READ)
        wire.send(SEEN)

    def _leave_seat(self) -> None:
        if self.wire is not None:
            self.selector.unregister(self.wire)
            self.wire.close()
            self.wire = None
        for child in self.children:
            for end in (os.kill, os.killpg):  # it leads a group, unless it was born just now
                with contextlib.suppress(ProcessLookupError):
                    end(child, signal.SIGKILL)


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies; end now if it has died already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _guard(nursery: int, descriptors: list[int], serve: Callable[[int], None]) -> Any:
    """A worker's parent, which ends as the worker does: one that kills its parent does not kill the nursery."""
    _die_with(nursery)
    os.setsid()  # a group of their own, so that what a kernel starts can be ended with it
    guard = os.getpid()
    worker = os.fork()
    if worker == 0:
        _live(guard, descriptors, serve)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for descriptor in descriptors:
        os.close(descriptor)
    _, status = os.waitpid(worker, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(guard, -code)
    os._exit(code if code >= 0 else 1)


def _live(guard: int, descriptors: list[int], serve: Callable[[int], None]) -> Any:
    """The worker's whole life; never returns."""
    code = 1
    try:
        _die_with(guard)
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


def main() -> None:
    """Import, then be born again as often as something kills the nursery: the door stays open meanwhile."""
    descriptor, parent, target, place, lingers = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5], bool(sys.argv[5])
    if not lingers:
        _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    if target == "host":
        import evo.targets.host

        del evo.targets.host
    gc.collect()
    gc.freeze()  # so that collections in the children leave these pages shared
    wire: socket.socket | None = socket.socket(fileno=descriptor)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(address(place))
    door.listen(1)
    root = os.getpid()
    while True:
        nursery = os.fork()
        if nursery == 0:
            _die_with(root)
            _Births(wire, door, lingers or wire is None).run()
            os._exit(0)
        if wire is not None:
            wire.close()
            wire = None
        _, status = os.waitpid(nursery, 0)
        if os.WIFEXITED(status):
            return


if __name__ == "__main__":
    main()
