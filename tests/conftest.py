"""Shared by all tests: what a machine lacks is skipped with a reason."""

from __future__ import annotations

import os

import pytest

from evo.targets.nvml import gpu_names

# For this process and all that tests start: PyTorch's idle threads would spin on cores that others compile on, and a
# call of microseconds then takes milliseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if gpu_names():
        return
    no_gpu = pytest.mark.skip(reason="needs an NVIDIA GPU; run with `pytest -m gpu` on a machine that has one")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(no_gpu)
