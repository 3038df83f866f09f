"""A variant: a template with one value per knob for one target architecture, its key and its generated header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from evo.base import CONFIG_HEADERS, DTYPES, Base, Launch
from evo.expression import Expression
from evo.space import Configuration, Knob, SearchSpace, Value


@dataclass(frozen=True, slots=True)
class Variant:
    """Everything that a builder on any machine needs: no file of this machine is read after this."""

    key: str  # hash of sources, header, arch and toolchain
    base: str
    language: str
    entry: str
    arch: str
    toolchain: str
    configuration: Mapping[str, Value]
    constants: Mapping[str, Value]
    derived: Mapping[str, Value]
    header_name: str
    header: str
    sources: Mapping[str, str] = field(repr=False)
    launch: Launch | None = field(default=None, repr=False)
    gates: Mapping[str, Expression] = field(default_factory=dict, repr=False)
    facts: Mapping[str, Value] = field(default_factory=dict, repr=False)

    @property
    def values(self) -> dict[str, Value]:
        """Knobs, derived values, constants and device facts by name: what launch and gates are computed from."""
        return {**self.facts, **self.constants, **self.configuration, **self.derived}


def make_variant(
    base: Base,
    space: SearchSpace,
    configuration: Configuration,
    *,
    constants: Mapping[str, Value],
    facts: Mapping[str, Value],
    arch: str,
    toolchain: str,
) -> Variant:
    """Bind one configuration of a base to a case's constants, an architecture and a toolchain."""
    derived = space.derive(configuration)
    header = config_header(base.knobs, configuration, constants, derived)
    return Variant(
        key=variant_key(base.sources, header, base.entry, arch, toolchain),
        base=base.name,
        language=base.language,
        entry=base.entry,
        arch=arch,
        toolchain=toolchain,
        configuration=dict(configuration),
        constants=dict(constants),
        derived=derived,
        header_name=CONFIG_HEADERS[base.language],
        header=header,
        sources=base.sources,
        launch=base.launch,
        gates=base.gates,
        facts={**_words(base.knobs), **facts},
    )


def _words(knobs: tuple[Knob, ...]) -> dict[str, Value]:
    """Values of text knobs, each standing for itself, so that launch and gates may say `order == tiles`."""
    return {value: value for knob in knobs for value in knob.values if isinstance(value, str)}


def variant_key(sources: Mapping[str, str], header: str, entry: str, arch: str, toolchain: str) -> str:
    """Hex digest of everything the binary is made from; two equal keys are one program."""
    parts = [sorted(sources.items()), header, entry, arch, toolchain]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:32]


def config_header(
    knobs: tuple[Knob, ...],
    configuration: Mapping[str, Value],
    constants: Mapping[str, Value],
    derived: Mapping[str, Value],
) -> str:
    """The text of `evo_config`: a namespaced struct of typed constants, the only way knobs reach a template."""
    enums: list[str] = []
    members: list[str] = []
    for knob in knobs:
        value = configuration[knob.name]
        if isinstance(value, str):
            enums.append(_enum(knob.name, knob.values))
        members.append(_member(knob.name, value))
    for name, value in constants.items():
        if isinstance(value, str):
            enums.append(_enum(name, DTYPES if name == "dtype" else (value,)))
        members.append(_member(name, value))
    members += [_member(name, value) for name, value in derived.items()]
    body = "\n".join(f"  {member}" for member in members)
    declared = "".join(f"{enum}\n" for enum in enums)
    return f"#pragma once\n\nnamespace evo {{\n{declared}struct Config {{\n{body}\n}};\n}}  // namespace evo\n"


def camel(name: str) -> str:
    """tile_q -> TileQ"""
    return "".join(part[:1].upper() + part[1:] for part in str(name).split("_"))


def _enum(name: str, values: tuple[Value, ...]) -> str:
    return f"enum class {camel(name)} {{ {', '.join('k' + camel(str(value)) for value in values)} }};"


def _member(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return f"static constexpr bool k{camel(name)} = {'true' if value else 'false'};"
    if isinstance(value, int):
        return f"static constexpr int k{camel(name)} = {value};"
    if isinstance(value, float):
        return f"static constexpr double k{camel(name)} = {value!r};"
    return f"static constexpr {camel(name)} k{camel(name)} = {camel(name)}::k{camel(value)};"
