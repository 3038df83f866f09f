"""A base's gates, held against what the toolchain says of a binary."""

from __future__ import annotations

from collections.abc import Mapping

from evo.outcome import Built, Rejected, Stage
from evo.space import Value
from evo.variant import Variant


def check_gates(variant: Variant, built: Built) -> Built | Rejected:
    """Hold the base's gates (expressions over resources and knobs) against what was built."""
    used = built.resources
    report: dict[str, Value] = {
        "registers": used.registers,
        "spill_bytes": used.spill_bytes,
        "static_shared_bytes": used.static_shared_bytes,
        "barriers": used.barriers,
        "stack_bytes": used.stack_bytes,
    }
    values: Mapping[str, Value] = {**variant.values, **report}
    for name, gate in variant.gates.items():
        if not gate.evaluate(values):
            shown = ", ".join(f"{word} = {values[word]}" for word in sorted(gate.names) if word in values)
            return Rejected(Stage.GATES, name, f"{gate.text} does not hold: {shown}")
    return built
