"""A variant's launch geometry as C++: what a host program needs beside the measured header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evo.expression import Expression
from evo.record import VariantRecord
from evo.variant import camel

_AXES = ("x", "y", "z")


def launch_text(variant: VariantRecord, dimensions: Sequence[str]) -> str:
    """`struct evo::Launch`: grid, block, cluster and dynamic shared memory as constexpr functions of the case.

    dimensions: names of the case's run-time dimensions, the functions' parameters. Empty for a base without a launch.
    """
    if not variant.launch:
        return ""
    names = _cpp_names(variant, dimensions)
    parameters = ", ".join(f"[[maybe_unused]] int {name}" for name in dimensions)
    lines: list[str] = []
    for kind in ("grid", "block", "cluster"):
        for axis, text in zip(_AXES, [*variant.launch.get(kind, ()), "1", "1", "1"], strict=False):
            body = Expression.parse(text).to_cpp(names)
            lines.append(f"  static constexpr int {kind}_{axis}({parameters}) {{\n    return {body};\n  }}")
    shared = Expression.parse(variant.launch["shared_bytes"]).to_cpp(names)
    lines.append(f"  static constexpr int kSharedBytes = {shared};")
    body = "\n".join(lines)
    return (
        "#ifndef __CUDACC_RTC__  // geometry in blocks and threads, for the host that launches\n"
        f"namespace evo {{\nstruct Launch {{\n{body}\n}};\n}}  // namespace evo\n#endif\n"
    )


def _cpp_names(variant: VariantRecord, dimensions: Sequence[str]) -> dict[str, str]:
    names = {name: name for name in dimensions}
    groups: tuple[Mapping[str, Any], ...] = (variant.configuration, variant.constants, variant.derived)
    for group in groups:
        for name, value in group.items():
            names[name] = f"Config::k{camel(name)}"
            if isinstance(value, str):
                names[f"{name}.{value}"] = f"{camel(name)}::k{camel(value)}"
    for name, fact in variant.facts.items():
        names[name] = str(fact).lower() if isinstance(fact, bool) else str(fact)
    return names
