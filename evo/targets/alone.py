"""One variant launched with nothing around it: each buffer is an allocation of its own, whose end a sanitizer sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from cuda.bindings import driver
from cuda.core import Device, ObjectCode, launch

from evo.outcome import Built
from evo.targets import LaunchError
from evo.targets.cuda import allow_shared_memory, launch_config
from evo.variant import Variant
from evo.workloads import Workload


def launch_alone(variant: Variant, built: Built, workload: Workload, cases: Sequence[Any]) -> None:
    """Launch once on each case, without PyTorch's allocator. Raises: LaunchError."""
    device = Device(0)
    device.set_current()
    stream = device.create_stream()
    kernel = ObjectCode.from_cubin(built.binary).get_kernel(variant.entry)
    allow_shared_memory(kernel, built.resources.shared_bytes, device)
    for case in cases:
        inputs = workload.inputs(case, 1, "cpu")
        outputs = {
            name: torch.zeros(shape, dtype=getattr(torch, dtype))
            for name, (shape, dtype) in workload.empty_outputs(case).items()
        }
        arguments = [_on_device(value) for value in workload.arguments(case, inputs, outputs)]
        launch(stream, launch_config(variant, case.dimensions()), kernel, *arguments)
        stream.sync()


def _on_device(value: Any) -> Any:
    """A kernel's argument; a tensor's bytes in memory of exactly their size."""
    if isinstance(value, torch.Tensor):
        size = value.numel() * value.element_size()
        pointer = _checked(driver.cuMemAlloc(size))
        _checked(driver.cuMemcpyHtoD(pointer, value.contiguous().data_ptr(), size))
        return int(pointer)
    return np.float32(value) if isinstance(value, float) else np.int32(value)


def _checked(answer: tuple[Any, ...]) -> Any:
    if answer[0] != driver.CUresult.CUDA_SUCCESS:
        raise LaunchError("driver", str(answer[0].name))
    return answer[1] if len(answer) > 1 else None
