"""Shared by all tests: what a machine lacks is skipped with a reason."""

from __future__ import annotations

import pytest

from evo.targets.nvml import gpu_names


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if gpu_names():
        return
    no_gpu = pytest.mark.skip(reason="needs an NVIDIA GPU; run with `pytest -m gpu` on a machine that has one")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(no_gpu)
