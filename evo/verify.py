"""Outputs against the oracle: is a built variant right?"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evo.outcome import Built, CaseError, Rejected, Stage, Verified
from evo.targets import LaunchError, Program
from evo.workloads import Tensors, Workload

_FENCE = 2048  # elements of canary on each side of every output
_ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}
_OUTPUT_ULPS = 2.0  # units in the last place of the largest output, beside twice the library's own error
# Of the size of a sum's terms: fp32 sums taken in another order than the library's. The root of 64 terms, as of a head.
# Source: Higham and Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 3.1.
_SUM_ULPS = 8.0 * 2.0**-24


@dataclass(frozen=True, slots=True)
class Truth:
    """Fresh inputs, the oracle's answer to them and how much error is allowed on each output."""

    case: Any
    seed: int
    distribution: str
    inputs: Tensors
    pristine: Tensors  # bit copies of the inputs: a kernel must not write them
    expected: Tensors  # float64
    max_bound: dict[str, float]
    norm_bound: dict[str, float]
    row_bound: dict[str, torch.Tensor]  # of the norm of each row; none in fp32


class Oracle:
    """Truths by case and seed; keeps the most recent so that one seed's answer serves several variants."""

    def __init__(self, workload: Workload, device: str, *, kept: int = 32) -> None:
        self.workload, self.device, self.kept = workload, device, kept
        self._truths: OrderedDict[tuple[Any, int, str], Truth] = OrderedDict()

    def truth(self, case: Any, seed: int, distribution: str) -> Truth:
        key = (case, seed, distribution)
        if key in self._truths:
            self._truths.move_to_end(key)
            return self._truths[key]
        inputs = self.workload.inputs(case, seed, self.device, distribution)
        expected = self.workload.oracle(case, inputs)
        reference = self.workload.reference(case, inputs)
        sensitivity = self.workload.sensitivity(case, inputs)
        max_bound, norm_bound, row_bound = {}, {}, {}
        reordering = _SUM_ULPS * max(float(tensor.abs().max()) for tensor in inputs.values())
        for name, right in expected.items():
            rounding = _OUTPUT_ULPS * _ROUNDING[reference[name].dtype]
            theirs = (reference[name].double() - right).abs()
            # Where few outputs are sensitive, how far the library is off there is luck; what may be expected is added.
            enlarged = _SUM_ULPS * sensitivity[name]
            max_bound[name] = 2 * float(theirs.max()) + rounding * float(right.abs().max()) + reordering
            max_bound[name] += float(enlarged.max())
            ours = 2 * torch.linalg.vector_norm(theirs) + rounding * torch.linalg.vector_norm(right)
            ours += torch.linalg.vector_norm(enlarged)
            norm_bound[name] = float(ours) + reordering * right.numel() ** 0.5 / 4  # sums err independently
            if reference[name].dtype.itemsize == 2:
                row_bound[name] = _row_norms(theirs) * 2 + rounding * _row_norms(right) + _row_norms(enlarged)
                row_bound[name] += reordering * right.shape[-1] ** 0.5 / 4
        truth = Truth(
            case=case,
            seed=seed,
            distribution=distribution,
            inputs=inputs,
            pristine={name: tensor.clone() for name, tensor in inputs.items()},
            expected=expected,
            max_bound=max_bound,
            norm_bound=norm_bound,
            row_bound=row_bound,
        )
        self._truths[key] = truth
        if len(self._truths) > self.kept:
            self._truths.popitem(last=False)
        return truth


def verify(
    program: Program, built: Built, oracle: Oracle, cases: Sequence[tuple[Any, str]], seeds: Sequence[int]
) -> Verified | Rejected:
    """Run a program on every case and seed; right only if every output is, and nothing else was written.

    Raises: LaunchError when the device can no longer be used by this process.
    """
    started = time.perf_counter()
    errors: list[CaseError] = []
    for case, distribution in cases:
        for seed in seeds:
            checked = _check(program, oracle.workload, oracle.truth(case, seed, distribution), oracle.device)
            if isinstance(checked, Rejected):
                return checked
            errors.extend(checked)
    return Verified(built, tuple(errors), time.perf_counter() - started)


def _check(program: Program, workload: Workload, truth: Truth, device: str) -> list[CaseError] | Rejected:
    case = truth.case
    where = f"case {case.name} {truth.distribution} seed {truth.seed}"
    fenced = {name: _Fenced(shape, dtype, device) for name, (shape, dtype) in workload.empty_outputs(case).items()}
    outputs = {name: buffer.view for name, buffer in fenced.items()}
    try:
        program.run(case, truth.inputs, outputs)
    except LaunchError as error:
        if error.fatal:
            raise
        return Rejected(Stage.LAUNCH, error.reason, f"{where}: {error.detail}")
    for name, pristine in truth.pristine.items():
        if not torch.equal(_bits(truth.inputs[name]), _bits(pristine)):
            truth.inputs[name].copy_(pristine)  # the next variant gets what was meant
            return Rejected(Stage.VERIFY, "mutated_input", f"{where}: {name} was written")
    errors: list[CaseError] = []
    for name, buffer in fenced.items():
        if not buffer.intact():
            return Rejected(Stage.VERIFY, "out_of_bounds_write", f"{where}: the fence around {name} was written")
        out, right = buffer.view.double(), truth.expected[name]
        distance = (out - right).abs()
        max_error, norm_error = float(distance.max()), float(torch.linalg.vector_norm(distance))
        max_bound, norm_bound = truth.max_bound[name], truth.norm_bound[name]
        found = f"error {max_error:.3g} (allowed {max_bound:.3g}), norm {norm_error:.3g} ({norm_bound:.3g})"
        if not (max_error <= max_bound and norm_error <= norm_bound):  # so that NaN fails
            reason = "wrong_output" if bool(torch.isfinite(out).all()) else "not_finite"
            return Rejected(Stage.VERIFY, reason, f"{where}: {found}")
        # Where rows differ in size, as under a causal mask, large ones would hide that small ones are imprecise. Not in
        # fp32: there a row's conditioning, not the rounding of outputs, sets its error, and right kernels differ much.
        if name in truth.row_bound and not bool((_row_norms(distance) <= truth.row_bound[name]).all()):
            rows = int((_row_norms(distance) > truth.row_bound[name]).sum())
            return Rejected(Stage.VERIFY, "imprecise_rows", f"{where}: {rows} rows beyond their own bound; {found}")
        label = f"{case.name}/{truth.distribution}"
        errors.append(CaseError(label, truth.seed, max_error, max_bound, norm_error, norm_bound))
    return errors


class _Fenced:
    """An output poisoned with NaN between two fences of a known pattern."""

    def __init__(self, shape: tuple[int, ...], dtype: str, device: str) -> None:
        count = 1
        for extent in shape:
            count *= extent
        kind: torch.dtype = getattr(torch, dtype)
        # a NaN payload that arithmetic does not produce: a fence written with any value, NaN included, shows
        self._pattern = 0x7FA5 if kind.itemsize == 2 else 0x7FA5A5A5
        raw_kind = torch.int16 if kind.itemsize == 2 else torch.int32
        self._raw = torch.full((count + 2 * _FENCE,), self._pattern, dtype=raw_kind, device=device)
        self.view = self._raw[_FENCE : _FENCE + count].view(kind).view(shape)

    def intact(self) -> bool:
        ends = torch.cat((self._raw[:_FENCE], self._raw[-_FENCE:]))
        return bool((ends == self._pattern).all())


def _row_norms(tensor: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(tensor, dim=-1)
    return norms


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int16 if tensor.dtype.itemsize == 2 else torch.int32)
