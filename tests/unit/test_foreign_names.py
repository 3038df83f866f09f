"""Names from files that others wrote are checked before they reach a path, a header, a linker script or a shell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evo.base import find_base, load_base
from evo.errors import InputError
from evo.targets.host import HostTarget
from evo.targets.recorded import Recording
from evo.targets.replay import recorded_base
from evo.variant import Variant, make_variant
from tests.hostile.variants import write_base

NAUGHTY = ("../../etc/passwd", "a; rm -rf ~", "a b", "$(id)", "`id`", "a\nb", "", "-rf", '"', "};")


@pytest.fixture
def variant() -> Variant:
    target = HostTarget()
    base = find_base("cpu_attention")
    constants = {"head_dim": 64, "causal": False, "dtype": "float32"}
    facts = target.facts()
    space = base.space({**facts.limits, **constants})
    return make_variant(
        base,
        space,
        space.default,
        constants=constants,
        facts=facts.limits,
        arch=facts.arch,
        toolchain=target.toolchain(),
    )


@pytest.mark.parametrize("name", NAUGHTY)
def test_an_entry_from_a_database_is_checked_before_it_is_linked(variant: Variant, name: str) -> None:
    with pytest.raises(InputError, match="entry: expected the name of an extern C function"):
        HostTarget().build(replace(variant, entry=name))


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.hpp"])
def test_a_source_from_a_database_stays_in_the_builders_folder(variant: Variant, name: str) -> None:
    with pytest.raises(InputError, match="expected a path below kernels/"):
        HostTarget().build(replace(variant, sources={**variant.sources, name: "// text"}))


@pytest.mark.parametrize("name", NAUGHTY)
def test_a_recording_of_others_needs_a_name_that_a_file_could_have(name: str) -> None:
    recording = object.__new__(Recording)
    object.__setattr__(recording, "name", name)
    with pytest.raises(InputError, match="name: expected"):
        recorded_base(recording, Path("others.json"))


@pytest.mark.parametrize(
    ("line", "naughty"),
    [
        ("entry: attention_forward", "entry: 'a; } evil'"),
        ("template: hostile.cpp", "template: ../../../../etc/passwd"),
        ("  serial: [0, 1]", "  'serial; int x': [0, 1]"),
        ("  serial: [0, 1]", "  serial: ['a b', 'c']"),
        ("  honest_ones: ", "  'honest ones': "),
        ("honest_ones: hostility", "honest_ones: __import__('os').system('id') or hostility"),
        ("doc: Attention", "doc: !!python/object/apply:os.system [id]\nx: Attention"),
    ],
)
def test_a_base_of_others_is_refused_in_one_line(tmp_path: Path, line: str, naughty: str) -> None:
    path = write_base(tmp_path, honest=2, each=1)
    assert load_base(path).shipped is False
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, naughty))
    with pytest.raises(InputError) as refused:
        load_base(path)
    assert "\n" not in str(refused.value)


def test_a_base_is_ours_only_where_ours_lie(tmp_path: Path) -> None:
    assert find_base("cpu_attention").shipped
    assert not load_base(write_base(tmp_path, honest=1, each=1)).shipped
