"""What the CUDA driver says of this machine's GPUs before one is used: makes no context and needs no torch."""

from __future__ import annotations

from typing import Any

from cuda.bindings import driver

from evo.errors import InputError
from evo.space import Value

_ATTRIBUTES = {
    "device.shared_bytes_per_block": "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN",
    "device.shared_bytes_per_multiprocessor": "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR",
    "device.registers_per_multiprocessor": "MAX_REGISTERS_PER_MULTIPROCESSOR",
    "device.max_threads_per_block": "MAX_THREADS_PER_BLOCK",
    "device.max_threads_per_multiprocessor": "MAX_THREADS_PER_MULTIPROCESSOR",
    "device.multiprocessors": "MULTIPROCESSOR_COUNT",
}


def gpu_limits() -> list[dict[str, Value]]:
    """Facts for rules, by GPU, as its worker will know them; empty where no driver can be used.

    Raises: InputError when every GPU is too old.
    """
    found: list[dict[str, Value]] = []
    too_old: InputError | None = None
    for device in _devices():
        major, minor = (_read(device, f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
        try:
            check_age("this GPU", major, minor)
        except InputError as error:
            too_old = error
            continue
        limits: dict[str, Value] = {name: _read(device, attribute) for name, attribute in _ATTRIBUTES.items()}
        found.append({"device.arch": major * 10 + minor, **limits})
    if too_old is not None and not found:
        raise too_old
    return found


def check_age(name: str, major: int, minor: int) -> None:
    """Raises: InputError for a GPU that no template runs on."""
    if major < 8:
        raise InputError(f"{name} is sm_{major}{minor}; expected sm_80 or newer (cp.async and mma.sync m16n8k16)")


def _devices() -> list[Any]:
    try:
        _value(driver.cuInit(0))
        return [_value(driver.cuDeviceGet(index)) for index in range(_value(driver.cuDeviceGetCount()))]
    except RuntimeError:  # the bindings' own, too, where there is no driver; a worker will say what is wrong
        return []


def _read(device: Any, attribute: str) -> int:
    kind = getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{attribute}")
    return int(_value(driver.cuDeviceGetAttribute(kind, device)))


def _value(answer: tuple[Any, ...]) -> Any:
    """Raises: RuntimeError when the driver refuses."""
    status, *values = answer
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"the CUDA driver failed: {getattr(status, 'name', status)}")
    return values[0] if values else None
