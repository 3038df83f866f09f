"""The CUDA target: cubins loaded and launched through cuda.core on torch tensors, timed in CUDA graphs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cuda.bindings import driver
from cuda.core import Device, Kernel, LaunchConfig, ObjectCode, Stream, launch

from evo.errors import InputError
from evo.outcome import Built, Rejected
from evo.targets import DeviceFacts, LaunchError, Program, Stopwatch, nvrtc
from evo.targets.driver import check_age
from evo.variant import Variant
from evo.workloads import Tensors, Workload

_CODE = re.compile(r"CUDA_ERROR_(\w+)")
# Refusals of one launch, after which the context is as good as before.
_HARMLESS = (
    "INVALID_VALUE",
    "LAUNCH_OUT_OF_RESOURCES",
    "INVALID_IMAGE",
    "NOT_FOUND",
    "NO_BINARY_FOR_GPU",
    "OUT_OF_MEMORY",
)
_WORDS = {
    "illegal memory access": "illegal_address",
    "misaligned address": "misaligned_address",
    "illegal instruction": "illegal_instruction",
    "unspecified launch failure": "launch_failed",
    "device-side assert": "assert",
    "out of memory": "out_of_memory",
    "launch timed out": "launch_timeout",
}


class CudaTarget:
    """One GPU, the first that this process sees."""

    name = "cuda"

    def __init__(self, *, arch: str | None = None) -> None:
        self._arch = arch
        self._monitor: Any = None

    def toolchain(self) -> str:
        return nvrtc.toolchain()

    def facts(self) -> DeviceFacts:
        """The device's own facts, or the table's when only an architecture was asked for.

        Raises: InputError when there is no GPU and no architecture, or the GPU is too old.
        """
        if not torch.cuda.is_available():
            if self._arch is None:
                raise InputError("no CUDA device here; --arch sm_89 builds without one")
            return DeviceFacts(name=f"any {self._arch}", arch=self._arch, limits=nvrtc.arch_limits(self._arch))
        device: Any = torch.cuda.get_device_properties(0)
        arch = f"sm_{device.major}{device.minor}"
        check_age(device.name, device.major, device.minor)
        if self._arch is not None and self._arch != arch:
            return DeviceFacts(name=f"any {self._arch}", arch=self._arch, limits=nvrtc.arch_limits(self._arch))
        monitor = self._nvml()
        return DeviceFacts(
            name=device.name,
            arch=arch,
            uuid=f"GPU-{device.uuid}",
            driver=monitor.driver(),
            memory_bytes=device.total_memory,
            l2_bytes=device.L2_cache_size,
            limits={
                "device.arch": device.major * 10 + device.minor,
                "device.shared_bytes_per_block": device.shared_memory_per_block_optin,
                "device.shared_bytes_per_multiprocessor": device.shared_memory_per_multiprocessor,
                "device.registers_per_multiprocessor": device.regs_per_multiprocessor,
                "device.max_threads_per_block": 1024,
                "device.max_threads_per_multiprocessor": device.max_threads_per_multi_processor,
                "device.multiprocessors": device.multi_processor_count,
            },
            clocks=monitor.limits(),
        )

    def build(self, variant: Variant) -> Built | Rejected:
        return nvrtc.build(variant)

    def load(self, built: Built, variant: Variant, workload: Workload) -> CudaProgram:
        """Raises: LaunchError when the driver refuses the binary or its shared memory."""
        device = Device(0)
        device.set_current()
        try:
            kernel = ObjectCode.from_cubin(built.binary).get_kernel(variant.entry)
        except Exception as error:  # noqa: BLE001 - cuda.core's own error class is private
            raise launch_error(error) from None
        allow_shared_memory(kernel, built.resources.shared_bytes, device)
        return CudaProgram(kernel, variant, workload)

    def baseline(self, workload: Workload, backend: str) -> Program:
        return TorchProgram(workload, backend)

    def time(self, stopwatches: Sequence[Stopwatch], order: Sequence[int]) -> list[float]:
        """Replay the graphs in order between events, queued ahead of the device so that no gap is timed.

        The first graph is replayed once before, unmeasured, while the host queues the rest.
        Raises: LaunchError when a replay fails.
        """
        make_event: Any = torch.cuda.Event
        marks = [make_event(enable_timing=True) for _ in range(len(order) + 1)]
        stream = torch.cuda.current_stream()
        graphs = [stopwatch.graph for stopwatch in stopwatches]  # type: ignore[attr-defined]
        try:
            graphs[order[0]].replay()
            marks[0].record(stream)
            for mark, index in zip(marks[1:], order, strict=True):
                graphs[index].replay()
                mark.record(stream)
            marks[-1].synchronize()
        except RuntimeError as error:
            raise launch_error(error) from None
        return [
            1000.0 * begin.elapsed_time(end) / stopwatches[index].launches
            for begin, end, index in zip(marks, marks[1:], order, strict=False)
        ]

    def ceilings(self) -> tuple[float, float]:
        """An empty kernel's time and the rate of a large device copy (bytes read plus bytes written per second)."""
        token = torch.zeros(1, device="cuda")
        empty = _capture(lambda _: token.add_(0), 1, 50, token)  # the least that torch can launch
        large = torch.empty(2**28, dtype=torch.uint8, device="cuda")
        other = torch.empty_like(large)
        copy = _capture(lambda _: other.copy_(large), 1, 2, (large, other))
        empty_us, copy_us = min(self.time([empty], [0] * 5)), min(self.time([copy], [0] * 3))
        return empty_us / 2, 2 * large.numel() / (copy_us * 1e-6)  # half: back-to-back launches may overlap

    def environment(self) -> dict[str, Any]:
        return dict(self._nvml().now())

    def _nvml(self) -> Any:
        if self._monitor is None:
            from evo.targets.nvml import Monitor

            self._monitor = Monitor.of_torch_device(0)
        return self._monitor


@dataclass(slots=True)
class GraphStopwatch:
    """A captured CUDA graph of `launches` launches, and what must live as long as it."""

    graph: torch.cuda.CUDAGraph
    launches: int
    kept: Any


class CudaProgram:
    """A loaded kernel and its launch geometry."""

    def __init__(self, kernel: Kernel, variant: Variant, workload: Workload) -> None:
        self._kernel, self._variant, self._workload = kernel, variant, workload
        self._configs: dict[Any, LaunchConfig] = {}

    def run(self, case: Any, inputs: Tensors, outputs: Tensors) -> None:
        try:
            self._enqueue(case, inputs, outputs)
            torch.cuda.synchronize()
        except LaunchError:
            raise
        except Exception as error:  # noqa: BLE001 - cuda.core's own error class is private
            raise launch_error(error) from None

    def stopwatch(self, case: Any, input_sets: Sequence[Tensors], launches: int) -> GraphStopwatch:
        outputs = [_outputs(self._workload, case) for _ in input_sets]
        return _capture(lambda i: self._enqueue(case, input_sets[i], outputs[i]), len(input_sets), launches, outputs)

    def _enqueue(self, case: Any, inputs: Tensors, outputs: Tensors) -> None:
        stream = Stream.from_handle(torch.cuda.current_stream().cuda_stream)
        arguments = [_argument(value) for value in self._workload.arguments(case, inputs, outputs)]
        if case not in self._configs:
            self._configs[case] = launch_config(self._variant, case.dimensions())
        launch(stream, self._configs[case], self._kernel, *arguments)


class TorchProgram:
    """One of the workload's baselines as a program."""

    def __init__(self, workload: Workload, backend: str) -> None:
        self._workload, self._backend = workload, backend

    def run(self, case: Any, inputs: Tensors, outputs: Tensors) -> None:
        try:
            result = self._workload.baselines(case, "cuda")[self._backend](inputs)
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise launch_error(error) from None
        next(iter(outputs.values())).copy_(result)

    def stopwatch(self, case: Any, input_sets: Sequence[Tensors], launches: int) -> GraphStopwatch:
        call = self._workload.baselines(case, "cuda")[self._backend]
        kept: list[Any] = []

        def enqueue(i: int) -> None:
            kept.append(call(input_sets[i]))

        try:
            return _capture(enqueue, len(input_sets), launches, kept)
        except RuntimeError as error:
            raise launch_error(error) from None


def allow_shared_memory(kernel: Kernel, wanted_bytes: int, device: Device) -> None:
    """Let a kernel ask for more dynamic shared memory than the 48 KB it may have unasked.

    Raises: LaunchError when the device has not that much.
    """
    if wanted_bytes <= 48 * 1024:
        return
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (status,) = driver.cuKernelSetAttribute(attribute, wanted_bytes, kernel.handle, device.device_id)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise LaunchError("shared_memory", f"{wanted_bytes} bytes refused: {status.name}")


def launch_config(variant: Variant, dimensions: Mapping[str, int]) -> LaunchConfig:
    """Grid, block, cluster and shared memory of one launch. cuda.core counts a clustered grid in clusters."""
    if variant.launch is None:
        raise InputError(f"{variant.base}: launch: expected grid and block for a CUDA template")
    values = {**variant.values, **dimensions}

    def extents(expressions: Sequence[Any]) -> tuple[int, int, int]:
        found = [int(expression.evaluate(values)) for expression in expressions]
        x, y, z = (*found, 1, 1)[:3]
        return x, y, z

    grid, block = extents(variant.launch.grid), extents(variant.launch.block)
    shared = int(variant.launch.shared_bytes.evaluate(values))
    cluster = extents(variant.launch.cluster) if variant.launch.cluster else (1, 1, 1)
    if cluster == (1, 1, 1):
        return LaunchConfig(grid=grid, block=block, shmem_size=shared)
    clusters = tuple(-(-blocks // per) for blocks, per in zip(grid, cluster, strict=True))
    return LaunchConfig(grid=clusters, cluster=cluster, block=block, shmem_size=shared)


def launch_error(error: Exception) -> LaunchError:
    """Name what the driver or torch said; fatal unless it is known that the context survives it."""
    text = str(error)
    code = _CODE.search(text)
    if code:
        return LaunchError(code.group(1).lower(), text, fatal=code.group(1) not in _HARMLESS)
    for words, reason in _WORDS.items():
        if words in text:
            return LaunchError(reason, text, fatal=reason != "out_of_memory")
    return LaunchError("launch_failed", text, fatal="CUDA error" in text)


def _capture(enqueue: Any, sets: int, launches: int, kept: Any) -> GraphStopwatch:
    for i in range(sets):  # outside the graph first: lazy initialisation cannot be captured
        enqueue(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(launches):
            enqueue(i % sets)
    return GraphStopwatch(graph, launches, kept)


def _outputs(workload: Workload, case: Any) -> Tensors:
    return {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="cuda")
        for name, (shape, dtype) in workload.empty_outputs(case).items()
    }


def _argument(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.data_ptr()
    if isinstance(value, float):
        return np.float32(value)
    return np.int32(value)
