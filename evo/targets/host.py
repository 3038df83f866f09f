"""The CPU as a target: C++ templates built by g++ or clang++ to shared objects, loaded into this process and run.

A kernel that crashes takes its process with it: whoever calls `Program.run` provides the process.
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from evo.errors import InputError
from evo.outcome import Built, Rejected, Resources, Stage
from evo.targets import DeviceFacts, LaunchError, Stopwatch, processor
from evo.variant import Variant
from evo.workloads import Case, Tensors, Workload

if TYPE_CHECKING:
    import torch

COMPILERS = ("g++", "clang++")
FLAGS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-semantic-interposition",
    "-fPIC",
    "-pthread",
)
# The binary is a function of the sources alone: no build id, no symbol table, no name of a folder.
_LINK = ("-shared", "-s", "-Wl,--build-id=none", "-Wl,-z,defs", "-Wl,--version-script=exports.map")
_LOG_BYTES = 32_768
_BUILD_MEMORY_KIB = 8 * 1024 * 1024

# Run by sh as the leader of the compiler's process group. Its standard input is a pipe that only the builder holds:
# when the builder dies, by whatever signal, the guard reads end of file, ends the group and removes the folder.
_GUARDED = """
exec 3<&0 </dev/null
folder=$1 memory=$2; shift 2
( trap '' TERM; read -r _ <&3; kill -TERM 0; rm -rf "$folder" || { sleep 1; rm -rf "$folder"; }; kill -KILL 0 ) \
  >/dev/null 2>&1 &
guard=$!
ulimit -c 0; ulimit -v "$memory" 2>/dev/null
"$@"
code=$?
kill -KILL $guard 2>/dev/null; wait $guard 2>/dev/null
exit $code
"""

_STATIC_ASSERT = re.compile(r"static assertion failed(?: due to requirement .*?)?: \"?(\w+)\"?\s*$", re.MULTILINE)
_FLEET = "EVO_FLEET"  # by which a fleet knows its own processes (evo.sweeper)
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_serial = itertools.count(1)


def worker_bytes() -> int:
    """Memory that a worker of this machine may take: half of all, or 4 GiB where that is more."""
    return max(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2, 4 * 2**30)


class HostTarget:
    """Builds with the machine's own C++ compiler, runs on its own CPU."""

    name = "host"

    def __init__(self, compiler: str | None = None, *, build_timeout_s: float = 60.0) -> None:
        """Find the compiler: the one named, else g++, else clang++.

        Raises: InputError saying what to install.
        """
        self.compiler = find_compiler(compiler)
        self.build_timeout_s = build_timeout_s

    def toolchain(self) -> str:
        """Compiler, version, flags and the CPU that -march=native stands for."""
        return f"{_version(self.compiler)} {' '.join(FLAGS)} on {processor.identity()}"

    def facts(self) -> DeviceFacts:
        caches = processor.caches()
        return DeviceFacts(
            name=processor.name(),
            arch=platform.machine().replace("_", "-"),
            driver=f"{platform.system()} {platform.release()}",
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            l2_bytes=max(caches.values(), default=0),  # the last cache before memory: cold buffers rotate beyond it
            limits={
                "device.cores": processor.cores(),
                **{f"device.l{level}_bytes": size for level, size in caches.items()},
            },
            clocks={"cpu_mhz": processor.mhz()},
        )

    def ceilings(self) -> tuple[float, float]:
        """A call costs next to nothing and the caches' rates differ too much for one bound: both are left out."""
        return 0.0, 0.0

    def environment(self) -> dict[str, Any]:
        load, _, _ = os.getloadavg()
        return {"load_1min": round(load, 2), "cpu_mhz": processor.mhz(), "cores": processor.cores()}

    def build(self, variant: Variant) -> Built | Rejected:
        """Compile in a folder of its own, which is gone afterwards, also when this process is killed meanwhile."""
        if variant.toolchain != self.toolchain():
            detail = f"the variant was made for {variant.toolchain}; this machine has {self.toolchain()}"
            return Rejected(Stage.BUILD, "other_toolchain", detail)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="evo-build-", ignore_cleanup_errors=True) as folder:
            _write_sources(Path(folder), variant)
            command = [self.compiler, *FLAGS, "-fmax-errors=20" if "clang" not in self.compiler else "-ferror-limit=20"]
            command += ["-pipe", "-I.", "kernel.cpp", "-o", "kernel.so", *_LINK]
            code, log = _run_guarded(command, folder, self.build_timeout_s)
            log = log[:_LOG_BYTES]
            if code is None:
                return Rejected(Stage.TIMEOUT, "build", f"no binary after {self.build_timeout_s:g} s\n{log}")
            if code != 0:
                return Rejected(Stage.BUILD, _reason(code, log), log)
            binary = (Path(folder) / "kernel.so").read_bytes()
        return Built(
            key=variant.key,
            binary=binary,
            binary_hash=hashlib.sha256(binary).hexdigest()[:32],
            resources=Resources(),
            log=log,
            build_s=time.perf_counter() - started,
        )

    def load(self, built: Built, variant: Variant, workload: Workload) -> HostProgram:
        """Map the shared object into this process. Raises: LaunchError when it does not load."""
        library = _open_library(built.binary)
        try:
            function = library[variant.entry]
        except AttributeError:
            raise LaunchError("missing_entry", f"the binary has no symbol {variant.entry}") from None
        function.restype = None
        return HostProgram(library, function, workload)

    def baseline(self, workload: Workload, backend: str) -> TorchProgram:
        """A library's kernel on all the cores that variants may use."""
        import torch

        torch.set_num_threads(processor.cores())  # a worker may have been started with one
        return TorchProgram(workload, backend)

    def time(self, stopwatches: Sequence[Stopwatch], order: Sequence[int]) -> list[float]:
        """Microseconds per launch by the monotonic clock, one value per entry of `order`."""
        return [_sample_us(stopwatches[index]) for index in order]


class HostProgram:
    """A shared object in this process; unmapped when the last reference goes."""

    def __init__(self, library: ctypes.CDLL, function: Any, workload: Workload) -> None:
        self._library, self._function, self._workload = library, function, workload

    def run(self, case: Case, inputs: Tensors, outputs: Tensors) -> None:
        self._function(*_marshal(self._workload.arguments(case, inputs, outputs)))

    def stopwatch(self, case: Case, input_sets: Sequence[Tensors], launches: int) -> HostStopwatch:
        """Every launch of a sample takes the next set of inputs, in a circle that samples continue."""
        keep = [self._workload.arguments(case, inputs, _allocate(self._workload, case)) for inputs in input_sets]
        calls = [functools.partial(self._function, *_marshal(arguments)) for arguments in keep]
        return HostStopwatch(calls, launches, keep=(self, keep))


class TorchProgram:
    """A library's own kernel, timed as variants are."""

    def __init__(self, workload: Workload, backend: str) -> None:
        self._workload, self._backend = workload, backend

    def run(self, case: Case, inputs: Tensors, outputs: Tensors) -> None:
        import torch

        with torch.inference_mode():
            result = self._call(case)(inputs)
            results = result if isinstance(result, dict) else dict(zip(outputs, [result], strict=True))
            for name, tensor in results.items():
                outputs[name].copy_(tensor)

    def stopwatch(self, case: Case, input_sets: Sequence[Tensors], launches: int) -> HostStopwatch:
        call = self._call(case)
        return HostStopwatch([functools.partial(call, inputs) for inputs in input_sets], launches)

    def _call(self, case: Case) -> Callable[[Tensors], Any]:
        backends = self._workload.baselines(case, "cpu")
        if self._backend not in backends:
            raise LaunchError("no_backend", f"{self._backend}: expected one of {', '.join(backends)}")
        return backends[self._backend]


class HostStopwatch:
    """Prepared calls, one per set of inputs."""

    def __init__(self, calls: Sequence[Callable[[], Any]], launches: int, keep: object = None) -> None:
        """keep: owners of the memory and the code that the calls point to."""
        self.launches = launches
        self._calls, self._next, self._keep = calls, 0, keep

    def sample_us(self) -> float:
        """Microseconds per launch over `launches` launches."""
        import torch

        count = len(self._calls)
        turns = [self._calls[(self._next + i) % count] for i in range(self.launches)]
        self._next = (self._next + self.launches) % count
        with torch.inference_mode():
            started = time.perf_counter_ns()
            for call in turns:
                call()
            return (time.perf_counter_ns() - started) / 1000 / self.launches


def find_compiler(named: str | None = None) -> str:
    """Path of the C++ compiler. Raises: InputError saying what to install."""
    for candidate in (named,) if named else COMPILERS:
        path = shutil.which(candidate)
        if path:
            return path
    what = f"{named}: no such program" if named else "no C++ compiler found"
    raise InputError(f"host target: compiler: {what}; expected g++ or clang++ (on Debian or Ubuntu: apt install g++)")


def _sample_us(stopwatch: Stopwatch) -> float:
    if not isinstance(stopwatch, HostStopwatch):
        raise TypeError(f"a stopwatch of this target is needed, not {type(stopwatch).__name__}")
    return stopwatch.sample_us()


def _write_sources(folder: Path, variant: Variant) -> None:
    """Template, headers, config header and the list of exported symbols, each under the name it is included by."""
    if not _ENTRY.match(variant.entry):  # a variant may come from a database that others wrote
        raise InputError(f"{variant.base}: entry: expected the name of an extern C function, not {variant.entry!r}")
    files = {(name or "kernel.cpp"): text for name, text in variant.sources.items()}
    files[variant.header_name] = variant.header
    # Only the entry is exported: names made from knobs do not reach the binary, and nothing pins it when it is closed.
    files["exports.map"] = f"{{ global: {variant.entry}; local: *; }};\n"
    for name, text in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f'{variant.base}: #include "{name}": expected a path below kernels/, without ..')
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def _run_guarded(command: Sequence[str], folder: str, timeout_s: float) -> tuple[int | None, str]:
    """Exit code (None: timed out) and output. No process of the group outlives this call or this process."""
    reading, writing = os.pipe()
    # TMPDIR: what the compiler drops on its way lies in the folder that is removed.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "TMPDIR": folder,
        "SOURCE_DATE_EPOCH": "0",
        **{name: value for name, value in os.environ.items() if name == _FLEET},
    }
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDED, "evo-build", folder, str(_BUILD_MEMORY_KIB), *command],
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
            code: int | None = process.returncode
        except subprocess.TimeoutExpired:
            _end_group(process)
            output, _ = process.communicate()
            code = None
        finally:
            _end_group(process)
    finally:
        os.close(reading)
        os.close(writing)
    return code, output.decode("utf-8", "replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(code: int, log: str) -> str:
    """A short, countable name of what the compiler complained of."""
    failed = _STATIC_ASSERT.search(log)
    if failed:
        return f"static_assert:{failed.group(1)}"
    if "out of memory" in log or "cannot allocate memory" in log.lower():
        return "compiler_out_of_memory"
    if code < 0 or code >= 128 or "internal compiler error" in log:
        return "compiler_crash"
    if re.search(r"undefined reference|ld returned|linker command failed", log):
        return "link_error"
    return "compile_error"


def _open_library(binary: bytes) -> ctypes.CDLL:
    """Load from anonymous memory: no file is left behind, whatever happens.

    The loader hands back an open library when it sees a name again, and descriptor numbers do come again. Slashes do
    not change what a path means, so a running number written in single and double slashes makes each name a new one.
    """
    descriptor = os.memfd_create("evo-kernel", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(binary)
        marks = "".join("/./" if bit == "1" else "//" for bit in f"{next(_serial):b}")
        library = ctypes.CDLL(f"/proc/self/fd{marks}{descriptor}", mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        raise LaunchError("not_loadable", str(error)) from None
    finally:
        os.close(descriptor)
    weakref.finalize(library, _ctypes.dlclose, library._handle).atexit = False
    return library


def _marshal(arguments: Sequence[Any]) -> list[Any]:
    """Workload arguments as C arguments: tensors as pointers, whole numbers as int, others as float."""
    return [_argument(argument) for argument in arguments]


def _argument(argument: Any) -> Any:
    if hasattr(argument, "data_ptr"):
        if argument.device.type != "cpu" or not argument.is_contiguous():
            raise ValueError(f"a kernel takes contiguous tensors in host memory, not {tuple(argument.stride())}")
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)


def _allocate(workload: Workload, case: Case) -> dict[str, torch.Tensor]:
    import torch

    shapes = workload.empty_outputs(case)
    return {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, (shape, dtype) in shapes.items()}


@functools.cache
def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    return done.stdout.splitlines()[0].strip() if done.stdout else Path(compiler).name
