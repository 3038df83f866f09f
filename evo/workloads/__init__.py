"""What a kernel computes: cases, inputs, the oracle, the baselines, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from evo.errors import InputError

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
WORKLOADS = ("attention",)


class Case(Protocol):
    """One problem that a kernel is asked to solve. Frozen, hashable, picklable."""

    @property
    def name(self) -> str:
        """Short and stable: elites are kept per case name."""

    @property
    def dtype(self) -> str: ...

    def constants(self) -> dict[str, bool | int | float | str]:
        """What is compiled into a variant: head_dim, causal, dtype."""

    def dimensions(self) -> dict[str, int]:
        """What is known at launch: batch, heads, seq_q, seq_kv."""


class Workload(Protocol):
    """What a kernel family says of itself. Tensors are torch tensors, keyed by argument name."""

    name: str
    default_case: str
    shapes: Mapping[str, str]

    def case(self, text: str, *, dtype: str | None = None, causal: bool = False) -> Any:
        """A case from a shape's name or from its dimensions. Raises: InputError."""

    def trial_cases(self, case: Any) -> Sequence[tuple[Any, str]]:
        """(case, distribution) pairs that every variant is verified on during a search; same constants as `case`."""

    def final_cases(self, case: Any) -> Sequence[tuple[Any, str]]:
        """Further pairs, not used in the search, that a variant must pass before it is promoted."""

    def inputs(self, case: Any, seed: int, device: str, distribution: str = "normal") -> Tensors: ...

    def empty_outputs(self, case: Any) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of every output."""

    def arguments(self, case: Any, inputs: Tensors, outputs: Tensors) -> list[Any]:
        """The kernel's arguments in order: tensors, ints and floats."""

    def oracle(self, case: Any, inputs: Tensors) -> Tensors:
        """float64 outputs on the same inputs."""

    def sensitivity(self, case: Any, inputs: Tensors) -> Tensors:
        """How far each output moves when the sums that lead to it err by one part in all of their terms' size.

        float64, to first order; of sums whose error reaches the outputs enlarged.
        """

    def oracle_bytes(self, case: Any) -> int:
        """Memory that the oracle takes at once, at the least."""

    def reference(self, case: Any, inputs: Tensors) -> Tensors:
        """The library's own outputs in the case's dtype: sets how much error is allowed."""

    def baselines(self, case: Any, device: str) -> Mapping[str, Callable[[Tensors], Any]]:
        """Library implementations by name: what a variant is compared with."""

    def flops(self, case: Any) -> float: ...

    def bytes_moved(self, case: Any) -> float:
        """Fewest bytes through device memory: each input read once, each output written once."""


def find_workload(name: str) -> Workload:
    """The workload of that name. Raises: InputError."""
    if name == "attention":
        from evo.workloads.attention import Attention

        return Attention()
    raise InputError(f"workload {name}: expected {', '.join(WORKLOADS)}")
