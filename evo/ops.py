"""Promoted kernels in place of PyTorch's attention: `evo.ops.attention(q, k, v, is_causal=False)`.

The elite of the call's own case, architecture and dtype is taken from a results database or an exported JSON artifact
(`evo.ops.use(path)`; else $EVO_RESULTS, else ./results.db). Where there is none, where it was promoted but PyTorch was
faster, or where the tensors are not what a kernel takes, PyTorch's attention answers and the reason is logged once.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from evo.build_cache import load_build, save_build
from evo.errors import InputError
from evo.outcome import Built
from evo.record import Elite, VariantRecord, open_record
from evo.variant import Variant

__all__ = ["attention", "use"]

log = logging.getLogger("evo.ops")

_DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16"}
Plan = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A promoted variant, the dimensions it was promoted on, its time there and how many times as fast as PyTorch.

    ratio_high: upper end of the ratio's interval; infinite where none was recorded.
    """

    variant: Callable[[], Variant]
    constants: Mapping[str, Any]
    dimensions: Mapping[str, int]
    arch: str
    time_us: float
    ratio_high: float = math.inf


_source: Path | None = None
_candidates: list[_Candidate] | None = None
_plans: dict[Any, Plan | None] = {}


def use(path: str | Path | None) -> None:
    """Take elites from this database or JSON artifact from now on; None: look for them again.

    Raises: InputError when the file is neither.
    """
    global _source, _candidates
    _source = Path(path) if path is not None else None
    _candidates = _read(_source) if _source is not None else None
    _plans.clear()


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool = False) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v by the promoted kernel of this case, or by PyTorch where there is none.

    q: [B, H, S_q, D]; k, v: [B, H, S_kv, D]; fp16 or bf16 on one CUDA device. Returns [B, H, S_q, D].
    The causal mask is aligned top-left, as in PyTorch. Traced by torch.compile; may be captured in CUDA graphs.
    Raises: InputError for tensors that no attention takes together.
    """
    if torch.compiler.is_compiling():
        if _wants_gradient(q, k, v):  # known while tracing; within the op it would be too late
            return scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        return torch.ops.evo.attention(q, k, v, is_causal)  # type: ignore[no-any-return]
    return _attention(q, k, v, is_causal)


def _wants_gradient(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool) -> torch.Tensor:
    key = (q.shape, k.shape, v.shape, q.dtype, k.dtype, v.dtype, q.device, k.device, v.device, is_causal)
    try:
        plan = _plans[key]
    except KeyError:
        plan = _plans[key] = _make_plan(q, k, v, is_causal)
    if plan is None or not _fits(q, k, v):
        return scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    return plan(q, k, v)


def _fits(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether these very tensors can go to the kernel: contiguous, 16-byte aligned, no gradient asked for."""
    if (q.data_ptr() | k.data_ptr() | v.data_ptr()) & 15 or not (
        q.is_contiguous() and k.is_contiguous() and v.is_contiguous()
    ):
        _once("tensors are not contiguous and 16-byte aligned")
        return False
    if _wants_gradient(q, k, v):
        _once("a gradient is asked for, and the kernels are forward only")
        return False
    return True


def _make_plan(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool) -> Plan | None:
    _check(q, k, v)
    batch, heads, seq_q, head_dim = q.shape
    dimensions = {"batch": batch, "heads": heads, "seq_q": seq_q, "seq_kv": k.shape[2]}
    if q.device.type != "cuda" or q.dtype not in _DTYPES:
        return _without(f"{q.dtype} on {q.device.type}")
    major, minor = torch.cuda.get_device_capability(q.device)
    constants = {"head_dim": head_dim, "causal": is_causal, "dtype": _DTYPES[q.dtype]}
    best = _best_of(_known(), f"sm_{major}{minor}", constants, dimensions)
    if isinstance(best, str):
        return _without(best)
    return plan_for(best.variant(), dimensions, head_dim**-0.5, q.device)


def _best_of(
    known: Sequence[_Candidate], arch: str, constants: Mapping[str, Any], dimensions: Mapping[str, int]
) -> _Candidate | str:
    """The fastest candidate of this very case, or why there is none to be used."""
    case = f"case {dict(dimensions)}, {dict(constants)}, {arch}"
    fitting = [
        candidate
        for candidate in known
        if candidate.arch == arch
        and dict(candidate.constants) == dict(constants)
        and dict(candidate.dimensions) == dict(dimensions)
    ]
    if not fitting:
        return f"{case} has no elite"
    best = min(fitting, key=lambda candidate: candidate.time_us)
    if best.ratio_high < 1:
        return f"{case}: PyTorch was faster when its elite was promoted (ratio at most {best.ratio_high:.2f})"
    return best


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raises: InputError saying which tensor is not what was expected."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 4:
            raise InputError(f"{name}: expected [batch, heads, length, head_dim], got {tuple(tensor.shape)}")
        if 0 in tensor.shape:
            raise InputError(f"{name}: expected no empty dimension, got {tuple(tensor.shape)}")
        if tensor.device != q.device:
            raise InputError(f"{name}: expected on {q.device} like q, got {tensor.device}")
        if tensor.dtype != q.dtype:
            raise InputError(f"{name}: expected {q.dtype} like q, got {tensor.dtype}")
    if k.shape != v.shape:
        raise InputError(f"v: expected the shape of k {tuple(k.shape)}, got {tuple(v.shape)}")
    if (q.shape[0], q.shape[1], q.shape[3]) != (k.shape[0], k.shape[1], k.shape[3]):
        raise InputError(f"k: expected batch, heads and head_dim of q {tuple(q.shape)}, got {tuple(k.shape)}")


def plan_for(variant: Variant, dimensions: Mapping[str, int], scale: float, device: torch.device) -> Plan | None:
    """Build and load one variant: a call then costs one allocation and one launch. None if it does not build.

    The plan checks nothing: q, k and v must have these dimensions, be contiguous and 16-byte aligned.
    """
    import numpy as np
    from cuda.core import Device, ObjectCode, Stream, launch

    from evo.targets import nvrtc
    from evo.targets.cuda import allow_shared_memory, launch_config

    built = load_build(variant)
    if built is None:
        outcome = nvrtc.build(variant)
        if not isinstance(outcome, Built):
            return _without(f"the elite does not build: {outcome.reason}")
        save_build(built := outcome)
    index = device.index or 0
    gpu = Device(index)
    gpu.set_current()
    kernel = ObjectCode.from_cubin(built.binary).get_kernel(variant.entry)
    allow_shared_memory(kernel, built.resources.shared_bytes, gpu)
    config = launch_config(variant, dimensions)
    tail = (*(np.int32(extent) for extent in dimensions.values()), np.float32(scale))
    streams: dict[int, Any] = {}
    # torch.cuda.current_stream makes an object of it, which takes 3 us of a call's 14
    current_stream = torch._C._cuda_getCurrentRawStream

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)
        handle = current_stream(index)
        stream = streams.get(handle)
        if stream is None:
            stream = streams[handle] = Stream.from_handle(handle)
        launch(stream, config, kernel, q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), *tail)
        return out

    return run


def _known() -> list[_Candidate]:
    global _candidates
    if _candidates is None:
        path = Path(os.environ.get("EVO_RESULTS", "results.db"))
        _candidates = _read(path) if path.exists() else []
    return _candidates


def _read(path: Path) -> list[_Candidate]:
    if path.suffix == ".json":
        return [_of_artifact(path)]
    with open_record(path, create=False) as record:
        elites = [e for e in record.elites() if not e.replay]
        return [c for e in elites if (c := _of_elite(e, record.variant(e.variant_key))) is not None]


def _of_elite(elite: Elite, variant: VariantRecord) -> _Candidate | None:
    dimensions = _dimensions(elite.place.case_name)
    if variant.language != "cuda" or dimensions is None:
        return None
    time_us, ratio_high = (
        math.inf if value is None else value for value in (elite.promotion.time_us, elite.promotion.ratio_high)
    )
    return _Candidate(variant.variant, variant.constants, dimensions, elite.place.arch, time_us, ratio_high)


def _of_artifact(path: Path) -> _Candidate:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        fields = {k: v for k, v in document["variant"].items() if k != "resources"}
        variant = VariantRecord(base=document["base"], language="cuda", **fields)
        replay = str(document["campaign"]["replay"])
        dimensions = _dimensions(document["case"])
        time_us = float(document["time_us"]["median"])
        found = document["ratio"]["high"]
        ratio_high = math.inf if found is None else float(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected an artifact of `evo export --format json` ({error})") from None
    if dimensions is None:
        raise InputError(f"{path}: case: expected one of attention's, got {document['case']}")
    if replay:
        raise InputError(f"{path}: campaign: expected a measured one; this was replayed ({replay})")
    return _Candidate(variant.variant, variant.constants, dimensions, variant.arch, time_us, ratio_high)


def _dimensions(case_name: str) -> dict[str, int] | None:
    from evo.workloads.attention import Attention

    try:
        return Attention().case(case_name.removesuffix("-causal")).dimensions()
    except InputError:
        return None


def _without(reason: str) -> Plan | None:
    _once(reason)
    return None


_said: set[str] = set()


def _once(reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        log.warning("PyTorch's attention is used: %s", reason)


torch.library.define("evo::attention", "(Tensor q, Tensor k, Tensor v, bool is_causal=False) -> Tensor")


@torch.library.impl("evo::attention", "CompositeExplicitAutograd")
def _implementation(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool = False) -> torch.Tensor:
    return _attention(q, k, v, is_causal)


@torch.library.register_fake(  # type: ignore[untyped-decorator]
    "evo::attention"
)
def _fake(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool = False) -> torch.Tensor:
    _check(q, k, v)
    return torch.empty_like(q)


def _no_gradient(*_: Any) -> None:
    """Without it autograd would leave the inputs without a gradient and say nothing."""
    raise NotImplementedError("torch.ops.evo.attention is forward only; evo.ops.attention leaves gradients to PyTorch")


torch.library.register_autograd("evo::attention", _no_gradient)
