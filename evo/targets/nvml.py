"""What the driver's monitor says of one GPU: clocks, throttling, temperature, power."""

from __future__ import annotations

import contextlib
from typing import Any

import pynvml

_THROTTLE = {  # bits of nvmlDeviceGetCurrentClocksEventReasons that slow a kernel down
    0x4: "power_cap",
    0x8: "hardware_slowdown",
    0x20: "thermal_software",
    0x40: "thermal_hardware",
    0x80: "power_brake",
}


class Monitor:
    """One GPU as NVML sees it. Every reading that a driver does not offer is left out."""

    def __init__(self, uuid: str | None) -> None:
        self._handle: Any = None
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid) if uuid else pynvml.nvmlDeviceGetHandleByIndex(0)

    @classmethod
    def of_torch_device(cls, index: int) -> Monitor:
        import torch

        return cls(f"GPU-{torch.cuda.get_device_properties(index).uuid}")

    def driver(self) -> str:
        with contextlib.suppress(pynvml.NVMLError):
            return str(pynvml.nvmlSystemGetDriverVersion())
        return ""

    def limits(self) -> dict[str, int]:
        """Highest clocks in MHz."""
        return self._readings(
            {
                "max_sm_mhz": lambda h: pynvml.nvmlDeviceGetMaxClockInfo(h, pynvml.NVML_CLOCK_SM),
                "max_memory_mhz": lambda h: pynvml.nvmlDeviceGetMaxClockInfo(h, pynvml.NVML_CLOCK_MEM),
            }
        )

    def now(self) -> dict[str, int | str]:
        """sm_mhz, memory_mhz, temperature_c, power_w and throttle (names joined by a comma, or "none")."""
        found: dict[str, int | str] = {
            **self._readings(
                {
                    "sm_mhz": lambda h: pynvml.nvmlDeviceGetClockInfo(h, pynvml.NVML_CLOCK_SM),
                    "memory_mhz": lambda h: pynvml.nvmlDeviceGetClockInfo(h, pynvml.NVML_CLOCK_MEM),
                    "temperature_c": lambda h: pynvml.nvmlDeviceGetTemperature(h, pynvml.NVML_TEMPERATURE_GPU),
                    "power_w": lambda h: pynvml.nvmlDeviceGetPowerUsage(h) // 1000,
                }
            )
        }
        bits = self._readings({"bits": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons}).get("bits")
        if bits is not None:
            found["throttle"] = ",".join(name for bit, name in _THROTTLE.items() if bits & bit) or "none"
        return found

    def _readings(self, calls: dict[str, Any]) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, call in calls.items():
            if self._handle is not None:
                with contextlib.suppress(pynvml.NVMLError):
                    found[name] = int(call(self._handle))
        return found


def gpu_names() -> list[str]:
    """Names of the GPUs of this machine; empty without a driver. Initialises no CUDA context."""
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return [str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(count)]
    except pynvml.NVMLError:
        return []
