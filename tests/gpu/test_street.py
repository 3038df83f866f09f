"""On a GPU, with `pytest -m gpu`: from a search to its elite in PyTorch's place and in a C++ program."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import evo.ops
from evo.export import exported_key, find_champion
from evo.record import open_record

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
ROOT = Path(__file__).resolve().parents[2]
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def run(folder: Path, words: str) -> Any:
    command = [sys.executable, "-m", "evo.cli", *words.split(), "--json"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street")
    found = run(folder, "search --base phase5 --case mission --budget 12 --seed 3 --rounds 30 --no-proof --no-sanitize")
    assert found["replay"] is None
    assert found["evaluated"] == 12
    return folder


@pytest.fixture(params=["database", "artifact"])
def elite(folder: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The elite stands in for PyTorch's attention, and nothing is left to PyTorch unless a test says so."""
    if request.param == "artifact":
        run(folder, "export --base phase5 -o elite.json --format json")
    evo.ops._said.clear()
    evo.ops.use(folder / ("elite.json" if request.param == "artifact" else "results.db"))
    caplog.set_level(logging.WARNING, logger="evo.ops")
    yield
    evo.ops.use(None)


def tensors(seed: int) -> Tensors:
    generator = torch.Generator("cuda").manual_seed(seed)
    q, k, v = (torch.randn(1, 8, 512, 64, generator=generator, device="cuda").half() for _ in range(3))
    return q, k, v


def near(out: torch.Tensor, given: Tensors) -> None:
    right = scaled_dot_product_attention(*(tensor.double() for tensor in given))
    torch.testing.assert_close(out.double(), right, rtol=0, atol=2e-3)


@pytest.mark.usefixtures("elite")
def test_the_elite_answers_in_pytorchs_place(caplog: pytest.LogCaptureFixture) -> None:
    given = tensors(1)
    near(evo.ops.attention(*given), given)
    compiled = torch.compile(lambda q, k, v: evo.ops.attention(q, k, v) + 0, backend="aot_eager", fullgraph=True)
    near(compiled(*given), given)
    assert not caplog.records


@pytest.mark.usefixtures("elite")
def test_it_works_on_any_stream_and_within_a_graph(caplog: pytest.LogCaptureFixture) -> None:
    given = tensors(2)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        first = evo.ops.attention(*given)
    stream.synchronize()
    near(first, given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = evo.ops.attention(*given)
    for tensor, fresh in zip(given, tensors(3), strict=True):
        tensor.copy_(fresh)
    out.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    near(out, given)
    assert not caplog.records


@pytest.mark.usefixtures("elite")
def test_what_it_cannot_take_pytorch_answers_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    q, k, v = tensors(4)
    apart = torch.stack([q, q], dim=-1)[..., 0]
    near(evo.ops.attention(apart, k, v), (apart, k, v))
    assert "not contiguous" in caplog.text
    shorter = (q[:, :, :100].contiguous(), k, v)
    near(evo.ops.attention(*shorter), shorter)
    assert "has no elite" in caplog.text
    q.requires_grad_()
    evo.ops.attention(q, k, v).float().sum().backward()
    assert q.grad is not None
    assert bool(q.grad.isfinite().all())


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc installed")
def test_the_exported_header_and_the_template_make_a_c_plus_plus_program(folder: Path) -> None:
    run(folder, "export --base phase5 -o evo_config.cuh")
    header = (folder / "evo_config.cuh").read_text()
    with open_record(folder / "results.db", create=False) as record:
        champion = find_champion(record, "phase5")
        assert exported_key(header, champion.variant) == champion.variant.key
    shutil.copy(ROOT / "examples/cpp/attention.cu", folder)
    major, minor = torch.cuda.get_device_capability()
    command = f"nvcc -std=c++20 -arch=sm_{major}{minor} -I . -I {ROOT}/kernels -I {ROOT}/kernels/common"
    subprocess.run([*command.split(), "attention.cu", "-o", "attention"], cwd=folder, check=True, timeout=200)
    done = subprocess.run([folder / "attention"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
