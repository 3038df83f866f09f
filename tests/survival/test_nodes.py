"""A node of a real Ray cluster is lost with all that is on it; the search goes on where there is another."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
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
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    spec = WorkerSpec("host", "attention", CASE, QUICK, evaluate_s=8.0)
    hang, innocent, slow = kit.variant("hang"), kit.variant(serial=1), kit.variant("slow_compile")
    with Fleet(spec, address=cluster.address, builders=1, build_s=8.0) as fleet:
        lost_seat = fleet._seats.handles[0]
        (its_node,) = (node for node in nodes if node.node_id == lost_seat.node)
        assert not _until(fleet, lambda: _stands_by(fleet)), "nothing is under way yet"
        fleet.submit_build(1, slow)
        fleet.submit_run(2, hang, kit.built(hang), None)
        fleet.submit_run(3, innocent, kit.built(innocent), None)
        assert not fleet.wait(1.0), "all three are under way"
        removed_at = time.monotonic()
        cluster.remove_node(its_node, allow_graceful=False)
        done = _until(fleet, lambda: any(seat is not lost_seat for seat in fleet._seats.handles))
        assert time.monotonic() - removed_at < 10, "Ray's word that it is gone included"
        done += _until(fleet, lambda: fleet.running() + fleet.building() == 0)
        fleet.submit_build(4, innocent)
        done += _until(fleet, lambda: fleet.building() == 0)
        assert [seat.node for seat in fleet._seats.handles] == [n.node_id for n in nodes if n is not its_node]
    fates = {finished.number: finished.result for finished in done}
    assert len(done) == len(fates) == 4, "each is one outcome"
    assert (fates[1].stage, fates[2].stage) == (Stage.TIMEOUT, Stage.TIMEOUT), "tried once more, they are what they are"
    assert isinstance(fates[1], Rejected)
    assert isinstance(fates[3], Measured), "what waited behind it is not blamed"
    assert isinstance(fates[4], Built)


def _stands_by(fleet: Fleet) -> bool:
    """Whether a nursery on another node has imported everything and opened its door."""
    elsewhere = fleet._seats._elsewhere
    return elsewhere is not None and elsewhere[1] in Path("/proc/net/unix").read_text()


def _until(fleet: Fleet, condition: Callable[[], bool], limit_s: float = 120.0) -> list[Done]:
    done: list[Done] = []
    deadline = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline:
        done += fleet.wait(0.2)
        time.sleep(0.05)
    return done
