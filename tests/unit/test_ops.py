"""evo.ops.attention without a GPU: what it takes, what it refuses, and that it falls back and is traced."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from evo import ops
from evo.errors import InputError
from evo.record import open_record
from tests.synthetic import fill_campaign, make_spec, promote_best


@pytest.fixture(autouse=True)
def _no_elites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVO_RESULTS", str(tmp_path / "none.db"))
    ops.use(None)
    ops._said.clear()


def tensors(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v = (torch.randn(shape, dtype=dtype) for _ in range(3))
    return q, k, v


@pytest.mark.parametrize("is_causal", [False, True])
def test_without_an_elite_pytorch_answers_and_the_reason_is_logged_once(
    is_causal: bool, caplog: pytest.LogCaptureFixture
) -> None:
    q, k, v = tensors(2, 3, 17, 64)
    with caplog.at_level(logging.WARNING, logger="evo.ops"):
        out = ops.attention(q, k, v, is_causal)
        ops.attention(q, k, v, is_causal)
    torch.testing.assert_close(out, scaled_dot_product_attention(q, k, v, is_causal=is_causal))
    assert len(caplog.records) == 1
    assert "float32 on cpu" in caplog.text


def test_it_is_traced_whole_by_torch_compile() -> None:
    q, k, v = tensors(1, 2, 9, 64)
    compiled = torch.compile(lambda q, k, v: ops.attention(q, k, v) * 2, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), 2 * scaled_dot_product_attention(q, k, v))


def test_the_op_passes_torchs_own_checks() -> None:
    torch.library.opcheck(torch.ops.evo.attention.default, (*tensors(1, 2, 8, 64), False))


def test_a_gradient_flows_through_what_is_compiled() -> None:
    compiled = torch.compile(ops.attention, backend="aot_eager", fullgraph=True)
    found, expected = ([t.requires_grad_() for t in tensors(1, 1, 8, 64)] for _ in range(2))
    for ours, theirs in zip(found, expected, strict=True):
        theirs.data.copy_(ours.data)
    compiled(*found).square().sum().backward()
    scaled_dot_product_attention(*expected).square().sum().backward()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_bare_op_refuses_a_gradient() -> None:
    q, k, v = (tensor.requires_grad_() for tensor in tensors(1, 1, 8, 64))
    with pytest.raises(NotImplementedError, match="forward only"):
        torch.ops.evo.attention(q, k, v).sum().backward()


def test_a_gradient_flows_through_the_fallback() -> None:
    q, k, v = tensors(1, 1, 8, 64)
    q.requires_grad_()
    ops.attention(q, k, v).sum().backward()
    assert q.grad is not None


def test_tensors_that_are_not_contiguous_are_right_all_the_same() -> None:
    q, k, v = (tensor.transpose(1, 2) for tensor in tensors(1, 8, 2, 64))
    torch.testing.assert_close(ops.attention(q, k, v), scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q[0], k, v), r"q: expected \[batch, heads, length, head_dim\]"),
        (lambda q, k, v: (q, k[:, :, :0], v[:, :, :0]), "k: expected no empty dimension"),
        (lambda q, k, v: (q, k.half(), v), "k: expected torch.float32 like q"),
        (lambda q, k, v: (q, k, v[:, :, :3]), "v: expected the shape of k"),
        (lambda q, k, v: (q[:, :1], k, v), "k: expected batch, heads and head_dim of q"),
        (lambda q, k, v: (q, k.to("meta"), v), "k: expected on cpu like q"),
    ],
)
def test_tensors_that_no_attention_takes_together_are_named(change: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ops.attention(*change(*tensors(1, 2, 8, 64)))  # type: ignore[operator]


def test_a_file_that_is_no_artifact_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "artifact.json"
    path.write_text('{"base": "phase4"}')
    with pytest.raises(InputError, match=r"artifact\.json: expected an artifact of `evo export --format json`"):
        ops.use(path)


CONSTANTS = {"head_dim": 64, "causal": False, "dtype": "float16"}
DIMENSIONS = {"batch": 1, "heads": 8, "seq_q": 512, "seq_kv": 512}


def candidate(time_us: float, ratio_high: float, **dimensions: int) -> ops._Candidate:
    return ops._Candidate(pytest.fail, CONSTANTS, {**DIMENSIONS, **dimensions}, "sm_90", time_us, ratio_high)


def test_the_fastest_elite_of_the_very_case_is_taken() -> None:
    slow, fast, other = candidate(6.0, 1.5), candidate(5.0, 1.9), candidate(1.0, 9.0, seq_q=64)
    assert ops._best_of([slow, fast, other], "sm_90", CONSTANTS, DIMENSIONS) is fast
    assert "has no elite" in str(ops._best_of([slow, fast], "sm_89", CONSTANTS, DIMENSIONS))
    assert "has no elite" in str(ops._best_of([fast], "sm_90", {**CONSTANTS, "causal": True}, DIMENSIONS))


def test_where_pytorch_was_faster_it_answers() -> None:
    reason = ops._best_of([candidate(198.0, 0.58)], "sm_90", CONSTANTS, DIMENSIONS)
    assert "PyTorch was faster when its elite was promoted (ratio at most 0.58)" in str(reason)


def test_elites_of_a_database_come_with_their_ratio(tmp_path: Path) -> None:
    with open_record(tmp_path / "r.db") as record:
        campaign_id = record.start_campaign(make_spec())
        promote_best(record, campaign_id, fill_campaign(record, campaign_id, 40))
        promoted = {elite.promotion.ratio_high for elite in record.elites()}
    assert {found.ratio_high for found in ops._read(tmp_path / "r.db")} == promoted
