"""Clusters that cannot be used are told in words that help."""

from __future__ import annotations

from typing import Any

import pytest

from evo import cluster
from evo.errors import InputError


def test_a_cluster_that_does_not_answer_may_want_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(InputError, match=r"^--ray-address 10\.0\.0\.1:6379 does not answer: .*RAY_AUTH_MODE=token"):
        cluster.Cluster("10.0.0.1:6379").join()
    with pytest.raises(InputError, match=r"^Ray on this machine does not answer: [^;]*$"):
        cluster.Cluster().join()


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"CPU": 2.0}, "--gpu-type L4: expected a GPU's type; this Ray cluster has no GPU"),
        ({"GPU": 1.0, "accelerator_type:H200": 1.0}, "--gpu-type L4: expected one of H200"),
    ],
)
def test_a_type_of_gpu_that_is_not_there_is_told(
    resources: dict[str, float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: resources)
    with pytest.raises(InputError, match=f"^{expected}$"):
        cluster.seats_of("cuda", "L4")
