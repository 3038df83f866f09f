"""A variant's launch geometry as C++: what a host program needs beside the measured header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evo.expression import Expression, value_text
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


class _Names(dict[str, str]):
    """C++ names by ours; "knob.word" is a member of that knob's enum, whichever word."""

    def __init__(self, variant: VariantRecord) -> None:
        super().__init__()
        values = {**variant.configuration, **variant.constants}
        self._texts = {name for name, value in values.items() if isinstance(value, str)}

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (str(key).partition(".")[0] in self._texts and "." in str(key))

    def __missing__(self, key: str) -> str:
        knob, _, word = key.partition(".")
        if knob in self._texts and word:
            return f"{camel(knob)}::k{camel(word)}"
        raise KeyError(key)


def _cpp_names(variant: VariantRecord, dimensions: Sequence[str]) -> dict[str, str]:
    names = _Names(variant)
    names.update({name: name for name in dimensions})
    groups: tuple[Mapping[str, Any], ...] = (variant.configuration, variant.constants, variant.derived)
    for group in groups:
        for name in group:
            names[name] = f"Config::k{camel(name)}"
    for name, fact in variant.facts.items():
        if fact != name:  # a word stands for itself and has meaning only beside its knob
            names[name] = value_text(fact)
    return names
