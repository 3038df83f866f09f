"""A node of a real Ray cluster is lost with all that is on it; the search goes on where there is another."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from evo.fleet import Fleet
from evo.measure import Timing
from evo.outcome import Built, Done, Measured, Rejected, Stage
from evo.seat import WorkerSpec
from tests.hostile.kit import CASE, Kit

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.timeout(600),  # of a busy machine; a minute is not needed
]
QUICK = Timing(launches=1, sample_us=100.0, first_look=2, rounds=2)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Its head only keeps the books; nodes that work are added by the test."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_lost_node_is_one_loss_and_the_search_goes_on_elsewhere(cluster: Any, tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    first = cluster.add_node(num_cpus=2)
    spec = WorkerSpec("host", "attention", CASE, QUICK, evaluate_s=8.0)
    hang, innocent, slow = kit.variant("hang"), kit.variant(serial=1), kit.variant("slow_compile")
    with Fleet(spec, address=cluster.address, builders=1, build_s=8.0) as fleet:
        cluster.add_node(num_cpus=2)
        lost_seat = fleet._seats[0]
        fleet.submit_build(1, slow)
        fleet.submit_run(2, hang, kit.built(hang), None)
        fleet.submit_run(3, innocent, kit.built(innocent), None)
        assert not fleet.wait(1.0), "all three are under way"
        cluster.remove_node(first, allow_graceful=False)
        done: list[Done] = []
        deadline = time.monotonic() + 240
        while fleet.running() + fleet.building() and time.monotonic() < deadline:
            done += fleet.wait(0.2)
        fleet.submit_build(4, innocent)
        while fleet.building() and time.monotonic() < deadline:
            done += fleet.wait(0.2)
        assert [seat.place for seat in fleet._seats] == [lost_seat.place]
        assert fleet._seats[0] is not lost_seat
    fates = {finished.number: finished.result for finished in done}
    assert len(done) == len(fates) == 4, "each is one outcome"
    assert (fates[1].stage, fates[2].stage) == (Stage.TIMEOUT, Stage.TIMEOUT), "tried once more, they are what they are"
    assert isinstance(fates[1], Rejected)
    assert isinstance(fates[3], Measured), "what waited behind it is not blamed"
    assert isinstance(fates[4], Built)
