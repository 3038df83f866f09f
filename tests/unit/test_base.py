"""A base is read whole or refused with one line: file, key, what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evo.base import base_paths, find_base, load_base
from evo.errors import InputError

FACTS = {"head_dim": 64, "causal": False, "dtype": "float16", "device.arch": 90}
DIMENSIONS = {"batch": 1, "heads": 8, "seq_q": 512, "seq_kv": 512}
GOOD: dict[str, Any] = {
    "template": "mine/kernel.cu",
    "workload": "attention",
    "entry": "attention_forward",
    "doc": "a test",
    "knobs": {"tile_q": [16, 32], "swizzle": {"values": ["none", "xor"], "default": "xor", "doc": "how rows lie"}},
    "derived": {"threads": "2 * tile_q"},
    "rules": {"small": "tile_q <= 32", "only_xor": "swizzle == xor or tile_q == 16"},
    "launch": {"grid": ["ceil_div(seq_q, tile_q)", "heads"], "block": ["threads"], "shared_bytes": 1024},
    "gates": {"no_spills": "spill_bytes == 0"},
}


HUGE = {f"k{i}": list(range(20)) for i in range(12)}  # more combinations than are ever listed
ONE = {"grid": [1], "block": [32]}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "kernels/mine").mkdir(parents=True)
    (tmp_path / "kernels/common").mkdir()
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "kernels/mine/kernel.cu").write_text('#include "evo_config.cuh"\n#include "task.cuh"\n')
    (tmp_path / "kernels/common/task.cuh").write_text('#include "common/deep.cuh"\n#include <mma.h>\n')
    (tmp_path / "kernels/common/deep.cuh").write_text("// the end\n")
    return tmp_path


def written(tree: Path, **changes: Any) -> Path:
    """The good base with some keys changed; None leaves a key out."""
    document = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path = tree / "search_spaces/mine.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def complaint(path: Path) -> str:
    """What a search says of this base, up to the first variant."""

    def use() -> None:
        base = load_base(path)
        base.check_use(base.space(FACTS), FACTS, DIMENSIONS)

    with pytest.raises(InputError) as caught:
        use()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_base_is_read_with_every_header_that_it_includes(tree: Path) -> None:
    base = load_base(written(tree))
    base.check_use(base.space(FACTS), FACTS, DIMENSIONS)
    assert (base.name, base.language, base.dtypes) == ("mine", "cuda", ("float16", "bfloat16"))
    assert set(base.sources) == {"", "task.cuh", "common/deep.cuh"}
    assert not base.shipped
    space = base.space(FACTS)
    assert space.size == 3
    assert dict(space.default) == {"tile_q": 16, "swizzle": "xor"}


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"rules": {"small": "tile_qq <= 32"}}, "rules.small", "unknown name 'tile_qq' (did you mean tile_q?)"),
        ({"rules": {"small": "tile_q <= = 32"}}, "rules.small", "is no expression: unexpected '=' at column 11"),
        ({"rules": {"small": ""}}, "rules.small", "expected an expression"),
        ({"rules": {"small": [1]}}, "rules.small", "expected an expression"),
        ({"rules": {"small": "__import__('os')"}}, "rules.small", "unknown function '__import__'"),
        ({"rules": {"small": "tile_q"}}, "rules.small", "expected a condition"),
        ({"rules": {"small": "tile_q > 999"}}, "rules", "no combination of values satisfies"),
        ({"rules": ["tile_q > 1"]}, "rules", "expected a mapping of names"),
        ({"rules": {"small": "zzz <= 32"}}, "rules.small", "unknown name 'zzz'; expected one of "),
        ({"derived": {"threads": "2 * tile_z"}}, "derived.threads", "unknown name 'tile_z'"),
        ({"derived": {"tile_q": "2"}}, "derived.tile_q", "expected a name that no knob has"),
        ({"knobs": {"tile_q": []}}, "knobs.tile_q", "at least one value"),
        ({"knobs": {"tile_q": None}}, "knobs.tile_q", "at least one value"),
        ({"knobs": {"tile_q": 16}}, "knobs.tile_q", "at least one value"),
        ({"knobs": {}}, "knobs", "at least one knob"),
        ({"knobs": {"tile_q": [16, 16]}}, "knobs.tile_q", "given twice"),
        ({"knobs": {"tile_q": [16, "x"]}}, "knobs.tile_q", "values of one type"),
        ({"knobs": {"tile_q": [1.5]}}, "knobs.tile_q", "not 1.5"),
        ({"knobs": {"tile_q": [2**31]}}, "knobs.tile_q", "fit 32 bits"),
        ({"knobs": {"Tile": [1]}}, "knobs.Tile", "a name like tile_q"),
        ({"knobs": {"tile_q": {"values": [1], "default": 2}}}, "knobs.tile_q.default", "expected one of 1, got 2"),
        ({"knobs": {"tile_q": {"vals": [1]}}}, "knobs.tile_q.vals", "values, default, doc or kind"),
        ({"knobs": {**GOOD["knobs"], "head_dim": [64]}}, "knobs.head_dim", "a name that no constant of the case has"),
        ({"template": "mine/nothing.cu"}, "template", "mine/nothing.cu is not there"),
        ({"template": "../../etc/passwd"}, "template", "expected a file under"),
        ({"template": "mine/notes.txt"}, "template", "is not there"),
        ({"template": None}, "template", "expected a text"),
        ({"workload": "convolution"}, "workload", "expected one of attention, not convolution"),
        ({"entry": "two words"}, "entry", "the name of an extern C function"),
        ({"dtypes": ["float8"]}, "dtypes", "float16, bfloat16, float32"),
        ({"knobs": {"and": [1]}}, "knobs", "none of and, else, if, in, not, or, true or false, got 'and'"),
        ({"launch": None}, "launch.grid", "a list of 1 to 3 expressions"),
        ({"launch": {"grid": [1], "block": [1] * 4}}, "launch.block", "a list of 1 to 3 expressions"),
        ({"launch": {"grid": ["seq_qq"], "block": [32]}}, "launch.grid[0]", "did you mean seq_q?"),
        ({"launch": {"grid": [1], "block": ["warps"]}}, "launch.block[0]", "unknown name 'warps'"),
        (
            {"launch": {"grid": [1], "block": [1], "shared_bytes": "seq_q"}},
            "launch.shared_bytes",
            "name 'seq_q'",
        ),
        ({"gates": {"no_spills": "spills == 0"}}, "gates.no_spills", "unknown name 'spills'"),
        ({"knob": {}}, "knob", "expected one of derived, doc"),
        ({"rules": {"small": f"tile_q < {2**63}"}}, "rules.small", "expected numbers of at most 64 bits"),
        ({"template": "mine/\0.cu"}, "template", "expected a file under"),
        ({"template": "m" * 5000}, "template", "expected a file under"),
        ({"gates": {"odd": "spill_bytes == swizzle + 1"}}, "gates.odd", "'+' does not go with a text"),
        ({"launch": {"grid": ["swizzle"], "block": [32]}}, "launch.grid[0]", "at least 1, not xor"),
        ({"launch": {"grid": [1], "block": ["tile_q - 16"]}}, "launch.block[0]", "at least 1, not 0"),
        (
            {"launch": {"grid": [1], "block": [1], "shared_bytes": "4 / (tile_q - 16)"}},
            "launch.shared_bytes",
            "not nan",
        ),
        ({"knobs": HUGE, "rules": {"never": "k0 > 20"}, "derived": {}, "launch": ONE}, "rules", "no combination of"),
    ],
)
def test_bad_input_names_file_key_and_what_was_expected(
    tree: Path, changes: dict[str, Any], key: str, expected: str
) -> None:
    path = written(tree, **changes)
    words = complaint(path)
    assert words.startswith(f"{path}: {key}: ")
    assert expected in words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("knobs: [", "line 1: not YAML"),
        ("- 1\n", "expected a mapping"),
        ("", "expected a mapping"),
        ("\0", "not YAML"),
        ("doc: a\nentry: f\ndoc: b\n", "line 3: not YAML (the key doc is given twice)"),
        ("rules: {one: a > 1, one: a > 2}\n", "line 1: not YAML (the key one is given twice)"),
        ("[" * 5000, "nested beyond reason"),
    ],
)
def test_what_is_no_yaml_mapping_is_refused(tree: Path, text: str, expected: str) -> None:
    path = tree / "search_spaces/mine.yaml"
    path.write_text(text)
    assert expected in complaint(path)


def test_an_include_that_is_nowhere_is_named_with_its_includer(tree: Path) -> None:
    (tree / "kernels/common/task.cuh").write_text('#include "gone.cuh"\n')
    assert '#include "gone.cuh" in task.cuh' in complaint(written(tree))


@pytest.mark.parametrize("name", ["../../secret.h", "/etc/hostname", "link.h", "m" * 300])
def test_an_include_from_outside_of_kernels_is_refused(tree: Path, name: str) -> None:
    (tree / "secret.h").write_text("// not of this base\n")
    (tree / "kernels/mine/link.h").symlink_to(tree / "secret.h")
    (tree / "kernels/mine/kernel.cu").write_text(f'#include "{name}"\n')
    words = complaint(written(tree))
    assert f'template: #include "{name[:80]}" in kernel.cu: expected a ' in words
    assert "below" in words or "under" in words


def test_the_nearest_base_is_suggested() -> None:
    with pytest.raises(InputError, match=r"--base phase44: no such base; did you mean 'phase4'\?"):
        find_base("phase44")
    with pytest.raises(InputError, match=r"there are cpu_attention, .*phase4"):
        find_base("zzz")
    with pytest.raises(InputError, match="no such file"):
        find_base("zzz.yaml")


@pytest.mark.parametrize("name", sorted(base_paths()))
def test_every_base_that_ships_holds_together(name: str) -> None:
    base = find_base(name)
    limits = {"device.cores": 4, "device.shared_bytes_per_block": 101376, "device.registers_per_multiprocessor": 65536}
    facts = {**FACTS, **limits, "device.arch": 89, "dtype": base.dtypes[0]}
    space = base.space(facts)
    base.check_use(space, facts, DIMENSIONS)
    assert space.size >= 100
    assert not space.violated(space.default)
    assert all(knob.doc for knob in base.knobs), "every knob says what it does"
    assert base.doc
