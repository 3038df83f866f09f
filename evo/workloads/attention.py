"""Scaled dot-product attention: cases, inputs, the float64 oracle and PyTorch's backends as baselines."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evo.errors import InputError
from evo.workloads import Tensors

if TYPE_CHECKING:  # cases are known to driver, seats and builders too, which compute nothing and start the sooner
    import torch

_DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_HEAD_DIMS = (64, 128)
_DIMENSIONS = re.compile(r"(\d+)x(\d+)x(\d+)(?::(\d+))?x(\d+)\Z")
_CUDA_BACKENDS = {  # by PyTorch's names
    "cudnn": "CUDNN_ATTENTION",
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "math": "MATH",
}


@dataclass(frozen=True, slots=True)
class AttentionCase:
    """q: [batch, heads, seq_q, head_dim]; k, v: [batch, heads, seq_kv, head_dim]; contiguous."""

    shape: str  # the name it was asked by
    batch: int
    heads: int
    seq_q: int
    seq_kv: int
    head_dim: int
    dtype: str
    causal: bool = False

    @property
    def name(self) -> str:
        return f"{self.shape}-causal" if self.causal else self.shape

    def constants(self) -> dict[str, bool | int | float | str]:
        return {"head_dim": self.head_dim, "causal": self.causal, "dtype": self.dtype}

    def dimensions(self) -> dict[str, int]:
        return {"batch": self.batch, "heads": self.heads, "seq_q": self.seq_q, "seq_kv": self.seq_kv}

    @property
    def scale(self) -> float:
        return float(self.head_dim**-0.5)


class Attention:
    """softmax(q k^T / sqrt(D)) v, forward. Source: Vaswani et al. 2017, equation 1."""

    name = "attention"
    default_case = "mission"
    shapes: Mapping[str, str] = {  # batch x heads x length x head_dim
        "tiny": "1x1x32x64",
        "small": "1x2x64x64",
        "medium": "1x4x128x64",
        "mission": "1x8x512x64",
        "multi_batch": "4x8x256x64",
        "large": "1x8x1024x64",
        "long": "2x16x2048x128",
    }

    def case(self, text: str, *, dtype: str | None = None, causal: bool = False) -> AttentionCase:
        """A case from a shape's name ("mission") or BxHxSxD, BxHxSq:SkvxD. Raises: InputError."""
        dtype = dtype or "float16"
        if dtype not in _DTYPE_BYTES:
            raise InputError(f"--dtype {dtype}: expected {', '.join(_DTYPE_BYTES)}")
        match = _DIMENSIONS.match(self.shapes.get(text, text))
        if match is None:
            raise InputError(
                f"--case {text}: expected {', '.join(self.shapes)} or BxHxSxD such as 1x8x512x64 (BxHxSq:SkvxD)"
            )
        batch, heads, seq_q, seq_kv, head_dim = (int(part) if part else 0 for part in match.groups())
        seq_kv = seq_kv or seq_q
        if min(batch, heads, seq_q, seq_kv) < 1 or max(batch, heads) > 65535:
            raise InputError(f"--case {text}: expected batch, heads and lengths of at least 1 (batch, heads <= 65535)")
        if head_dim not in _HEAD_DIMS:
            raise InputError(f"--case {text}: head_dim {head_dim} does not fit; expected 64 or 128")
        if batch * heads * max(seq_q, seq_kv) * head_dim > 2**31:
            raise InputError(f"--case {text}: tensors of more than 2^31 elements do not fit")
        return AttentionCase(text, batch, heads, seq_q, seq_kv, head_dim, dtype, causal)

    def trial_cases(self, case: AttentionCase) -> Sequence[tuple[AttentionCase, str]]:
        """The case itself, a ragged one with S_q < S_kv, and large logits with S_q > S_kv.

        Only where S_q > S_kv does a causal query see the last keys.
        """
        ragged = replace(case, shape="ragged", batch=2, heads=3, seq_q=97, seq_kv=161)
        steep = replace(case, shape="steep", batch=1, heads=2, seq_q=257, seq_kv=130)
        return ((case, "normal"), (ragged, "normal"), (steep, "large_logits"))

    def final_cases(self, case: AttentionCase) -> Sequence[tuple[AttentionCase, str]]:
        """Every length at which tiles begin, end or overhang, and every distribution."""
        cases: list[tuple[AttentionCase, str]] = []
        for length in (1, 31, 33, 127, 511, 513, 1000):
            odd = replace(case, shape=f"s{length}", batch=1, heads=2, seq_q=length, seq_kv=length)
            cases.append((odd, "normal"))
        for seq_q, seq_kv in ((1, 1000), (200, 33), (64, 511)):
            uneven = replace(case, shape=f"s{seq_q}_{seq_kv}", batch=1, heads=2, seq_q=seq_q, seq_kv=seq_kv)
            cases.append((uneven, "normal"))
        return [*cases, *((case, distribution) for distribution in ("large_logits", "constant_rows", "tiny_values"))]

    def inputs(self, case: AttentionCase, seed: int, device: str, distribution: str = "normal") -> Tensors:
        """q, k and v drawn independently of one another; the same on every device for a seed."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        queries = (case.batch, case.heads, case.seq_q, case.head_dim)
        keys = (case.batch, case.heads, case.seq_kv, case.head_dim)
        q, k, v = (torch.randn(shape, generator=generator) for shape in (queries, keys, keys))
        if distribution == "large_logits":  # scores beyond +-100: without a running maximum even fp32 overflows
            q, k = q * 8, k * 4
        elif distribution == "constant_rows":  # equal scores: every weight is 1 / seq_kv
            k = k[:, :, :1].expand(keys).clone()
        elif distribution == "tiny_values":
            q, v = q * 1e-3, v * 1e-2
        elif distribution != "normal":
            raise ValueError(f"unknown distribution {distribution}")
        dtype = getattr(torch, case.dtype)
        return {"q": q.to(device, dtype), "k": k.to(device, dtype), "v": v.to(device, dtype)}

    def empty_outputs(self, case: AttentionCase) -> Mapping[str, tuple[tuple[int, ...], str]]:
        return {"out": ((case.batch, case.heads, case.seq_q, case.head_dim), case.dtype)}

    def arguments(self, case: AttentionCase, inputs: Tensors, outputs: Tensors) -> list[Any]:
        """(q, k, v, out, batch, heads, seq_q, seq_kv, scale)"""
        tensors = [inputs["q"], inputs["k"], inputs["v"], outputs["out"]]
        return [*tensors, case.batch, case.heads, case.seq_q, case.seq_kv, case.scale]

    def oracle(self, case: AttentionCase, inputs: Tensors) -> Tensors:
        """float64 attention with the causal mask aligned top-left (query i sees keys 0..i)."""
        return {"out": _weights(case, inputs) @ inputs["v"].double()}

    def oracle_bytes(self, case: AttentionCase) -> int:
        """Scores and their softmax in float64, beside inputs and output."""
        rows = 2 * case.seq_q + 2 * case.seq_kv
        return 8 * case.batch * case.heads * (2 * case.seq_q * case.seq_kv + rows * case.head_dim)

    def sensitivity(self, case: AttentionCase, inputs: Tensors) -> Tensors:
        """What the softmax makes of errors in its scores: d out = sum_j w_j (v_j - out) d s_j.

        A score, its scaling and the exponent's argument err by a multiple of scale |q| |k_j|, each key's by itself: the
        squares add up. Where few keys share the weight and scores are large, this is far more than the outputs' size.
        """
        weights, q, k, v = _weights(case, inputs), *(inputs[name].double() for name in ("q", "k", "v"))
        out, squares, keys = weights @ v, weights.square(), k.square().sum(-1, keepdim=True)
        spread = squares @ (keys * v.square()) - 2 * out * (squares @ (keys * v)) + out.square() * (squares @ keys)
        return {"out": case.scale * q.norm(dim=-1, keepdim=True) * spread.clamp(min=0).sqrt()}

    def reference(self, case: AttentionCase, inputs: Tensors) -> Tensors:
        from torch.nn.functional import scaled_dot_product_attention

        out = scaled_dot_product_attention(inputs["q"], inputs["k"], inputs["v"], is_causal=case.causal)
        return {"out": out}

    def baselines(self, case: AttentionCase, device: str) -> Mapping[str, Callable[[Tensors], Any]]:
        """PyTorch's attention by backend; on a CPU the one it has, on all threads and on one."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.nn.functional import scaled_dot_product_attention

        def run(inputs: Tensors) -> torch.Tensor:
            return scaled_dot_product_attention(inputs["q"], inputs["k"], inputs["v"], is_causal=case.causal)

        def forced(backend: SDPBackend) -> Callable[[Tensors], torch.Tensor]:
            def run_forced(inputs: Tensors) -> torch.Tensor:
                with sdpa_kernel(backend):
                    return run(inputs)

            return run_forced

        def alone(inputs: Tensors) -> torch.Tensor:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                return run(inputs)
            finally:
                torch.set_num_threads(threads)

        if not device.startswith("cuda"):
            return {"torch": run, "torch-1": alone} if torch.get_num_threads() > 1 else {"torch": run}
        return {name: forced(getattr(SDPBackend, backend)) for name, backend in _CUDA_BACKENDS.items()}

    def flops(self, case: AttentionCase) -> float:
        """Two matrix products of 2 S_q S_kv D each; only the visible half when causal."""
        pairs = case.seq_q * case.seq_kv
        if case.causal:
            pairs = sum(min(i + 1, case.seq_kv) for i in range(case.seq_q))
        return 4.0 * case.batch * case.heads * pairs * case.head_dim

    def bytes_moved(self, case: AttentionCase) -> float:
        rows = 2 * case.seq_q + 2 * case.seq_kv
        return float(case.batch * case.heads * rows * case.head_dim * _DTYPE_BYTES[case.dtype])


def _weights(case: AttentionCase, inputs: Tensors) -> torch.Tensor:
    """The softmax of the scores in float64."""
    import torch

    q, k = inputs["q"].double(), inputs["k"].double()
    scores = (q @ k.transpose(-1, -2)) * case.scale
    if case.causal:
        hidden = torch.ones(case.seq_q, case.seq_kv, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.softmax(scores, dim=-1)
