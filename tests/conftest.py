"""Shared by all tests: what a machine lacks is skipped with a reason."""

from __future__ import annotations

import os

import pytest

from evo.targets.nvml import gpu_names

# For this process and all that tests start: PyTorch's idle threads would spin on cores that others compile on, and a
# call of microseconds then takes milliseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share the tests, a file at a time; what needs a machine to itself is in one of them only.

    What names a group of its own takes minutes, and so comes first; then what else is to survive, beside it.
    """
    first = {item for item in items if item.get_closest_marker("xdist_group")}
    for item in items:
        folder = item.path.parent.name
        alone = "gpu" if "gpu" in item.keywords else folder if folder == "survival" else None
        if item not in first:
            item.add_marker(pytest.mark.xdist_group(alone or str(item.path)))
    items.sort(key=lambda item: (item not in first, item.path.parent.name != "survival"))
    if gpu_names():
        return
    no_gpu = pytest.mark.skip(reason="needs an NVIDIA GPU; run with `pytest -m gpu` on a machine that has one")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(no_gpu)
