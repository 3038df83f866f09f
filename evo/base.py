"""A base: one templated kernel and its search space, read from search_spaces/NAME.yaml."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from evo.errors import InputError
from evo.expression import Expression, unknown_name
from evo.outcome import Resources
from evo.space import Knob, SearchSpace, Value
from evo.workloads import WORKLOADS, find_workload

_ROOT = Path(__file__).resolve().parent.parent
_INSTALLED = Path(__file__).resolve().parent / "shipped"  # where a wheel keeps kernels/, search_spaces/ and recordings/
SHIPPED = _INSTALLED if _INSTALLED.is_dir() else _ROOT
CONFIG_HEADERS = {"cuda": "evo_config.cuh", "host": "evo_config.hpp", "recorded": "evo_config.h"}

_LANGUAGES = {".cu": "cuda", ".cpp": "host"}
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_KEYS = {"template", "workload", "entry", "doc", "dtypes", "knobs", "derived", "rules", "launch", "gates"}
DTYPES = ("float16", "bfloat16", "float32")
_DTYPES = {"cuda": ("float16", "bfloat16"), "host": ("float32",)}  # what a template takes unless it says otherwise


@dataclass(frozen=True, slots=True)
class Launch:
    """How a CUDA kernel is launched: expressions over knobs, derived values, constants and the case's dimensions."""

    grid: tuple[Expression, ...]  # blocks
    block: tuple[Expression, ...]  # threads
    shared_bytes: Expression  # dynamic
    cluster: tuple[Expression, ...] = ()  # blocks per cluster; empty: none


@dataclass(frozen=True, slots=True)
class Base:
    """A templated kernel, its knobs and rules, and the text of every source it is made of."""

    name: str
    path: Path
    template: str
    language: str  # "cuda" or "host"
    workload: str
    entry: str
    doc: str
    dtypes: tuple[str, ...]  # the first is the default
    knobs: tuple[Knob, ...]
    derived: Mapping[str, Expression]
    rules: Mapping[str, Expression]
    gates: Mapping[str, Expression]
    launch: Launch | None
    sources: Mapping[str, str] = field(repr=False)  # as named in #include; "" is the template itself
    shipped: bool = True  # False: code from outside the project

    def space(self, facts: Mapping[str, Value]) -> SearchSpace:
        """The admissible configurations under these constants and device facts (see `evo.space`).

        Raises: InputError naming the file when a rule does not hold together or nothing is admissible.
        """
        for knob in self.knobs:
            if knob.name in facts:
                raise InputError(f"{self.path}: knobs.{knob.name}: expected a name that no constant of the case has")
        with _Located(str(self.path)):
            space = SearchSpace(self.knobs, rules=self.rules, derived=self.derived, facts=facts)
            # now, so that an empty space is said here
            _ = space.rows if space.enumerated else space.default
            return space

    def case(self, text: str = "", dtype: str = "", causal: bool = False) -> Any:
        """A case of this base's workload; where a text is empty, the workload's usual case and the first dtype.

        Raises: InputError for a case or a dtype that does not fit.
        """
        dtype = dtype or self.dtypes[0]
        if dtype not in self.dtypes:
            raise InputError(f"--dtype {dtype}: {self.name} takes {', '.join(self.dtypes)}")
        workload = find_workload(self.workload)
        return workload.case(text or workload.default_case, dtype=dtype, causal=causal)

    def check_names(self, facts: Iterable[str], dimensions: Iterable[str]) -> None:
        """Raises: InputError when launch or a gate uses a name that nothing gives a value to.

        facts: names of constants and device facts; dimensions: names of the case's run-time dimensions.
        """
        known = {*facts, *(knob.name for knob in self.knobs), *self.derived}
        resources = known | {field.name for field in fields(Resources)}
        for name, gate in self.gates.items():
            self.check_expression(f"gates.{name}", gate, resources)
        if self.launch is not None:
            sized = known | set(dimensions)
            for key in ("grid", "block", "cluster"):
                for index, expression in enumerate(getattr(self.launch, key)):
                    self.check_expression(f"launch.{key}[{index}]", expression, sized)
            self.check_expression("launch.shared_bytes", self.launch.shared_bytes, known)

    def check_use(self, space: SearchSpace, facts: Mapping[str, Value], dimensions: Mapping[str, int]) -> None:
        """Try launch and gates with the space's default, so that a text in a sum is told now and by its key.

        Raises: InputError, as `check_names`, or when a size is no number that a launch can have.
        """
        self.check_names(facts, dimensions)
        words = {value: value for knob in self.knobs for value in knob.values if isinstance(value, str)}
        values = {**words, **facts, **space.default, **space.derive(space.default), **dimensions}
        unused = {field.name: 0 for field in fields(Resources)}
        for name, gate in self.gates.items():
            with _Located(f"{self.path}: gates.{name}"):
                gate.evaluate({**values, **unused})
        if self.launch is not None:
            for key in ("grid", "block", "cluster"):
                for index, expression in enumerate(getattr(self.launch, key)):
                    self._check_extent(f"launch.{key}[{index}]", expression, values, 1)
            self._check_extent("launch.shared_bytes", self.launch.shared_bytes, values, 0)

    def _check_extent(self, key: str, expression: Expression, values: Mapping[str, Value], least: int) -> None:
        with _Located(f"{self.path}: {key}"):
            extent = expression.evaluate(values)
            if isinstance(extent, str) or not math.isfinite(extent) or extent < least:
                raise InputError(f"expected a number of at least {least}, not {extent} ({expression.text})")

    def check_expression(self, key: str, expression: Expression, known: set[str]) -> None:
        """Raises: InputError when an expression uses a name that is not known."""
        for name in sorted(expression.names - known - expression.bare_words(known).keys()):
            raise InputError(f"{self.path}: {key}: {unknown_name(name, known)}")


def base_paths() -> dict[str, Path]:
    """Every base by name: those of ./search_spaces first, then those that ship with Evo."""
    found: dict[str, Path] = {}
    for folder in (Path("search_spaces"), SHIPPED / "search_spaces"):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path.resolve())
    return found


def find_base(name: str) -> Base:
    """Load a base by its name or by the path of its YAML.

    Raises: InputError when there is none (with the nearest name) or when the file is not a base.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{name}: no such file; expected a base's YAML")
        return load_base(path)
    paths = base_paths()
    if name in paths:
        return load_base(paths[name])
    near = difflib.get_close_matches(name, paths, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(paths)) or 'none'}"
    raise InputError(f"--base {name}: no such base; {hint}")


def load_base(path: Path) -> Base:
    """Read one base from its YAML file.

    Raises: InputError with file, key and what was expected.
    """
    reader = _Reader(path)
    name = path.stem
    reader.expect(_NAME.match(name) is not None, "file name", "a name of small letters, digits and _ ")
    template = reader.text("template")
    root = path.resolve().parent.parent / "kernels"
    reader.expect(template.isprintable() and len(template.encode()) < 256, "template", f"a file under {root}")
    file = (root / template).resolve()
    if file.is_dir():
        file = file / "kernel.cu"
    reader.expect(file.is_relative_to(root), "template", f"a file under {root}")
    reader.expect(file.is_file(), "template", f"a file under {root}; {template} is not there")
    reader.expect(file.suffix in _LANGUAGES, "template", "a .cu (cuda) or .cpp (host) file")
    language = _LANGUAGES[file.suffix]
    workload = reader.text("workload")
    reader.expect(workload in WORKLOADS, "workload", f"one of {', '.join(WORKLOADS)}, not {workload}")
    reader.expect(language == "cuda" or "launch" not in reader.document, "launch", "none: a C++ function is called")
    entry = reader.text("entry")
    reader.expect(_ENTRY.match(entry) is not None, "entry", "the name of an extern C function")
    knobs = tuple(reader.knobs())
    base = Base(
        name=name,
        path=path.resolve(),
        template=template,
        language=language,
        workload=workload,
        entry=entry,
        doc=reader.text("doc", ""),
        dtypes=reader.dtypes(_DTYPES[language]),
        knobs=knobs,
        derived=reader.expressions("derived"),
        rules=reader.expressions("rules"),
        gates=reader.expressions("gates"),
        launch=reader.launch() if language == "cuda" else None,
        sources=_collect_sources(reader, file, root, CONFIG_HEADERS[language]),
        shipped=path.resolve().parent == SHIPPED / "search_spaces",
    )
    _check_names(base)
    return base


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which would let the later of two equal keys win without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in getattr(node, "value", ()) if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if any((key.tag, key.value) == (other.tag, other.value) for other in keys[:place]):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} is given twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


class _Reader:
    """One YAML document and the messages about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}: " if mark else ""
            words = " ".join(str(getattr(error, "problem", None) or error).split())
            raise InputError(f"{path}: {where}not YAML ({words})") from None
        except RecursionError:
            raise InputError(f"{path}: not YAML that anyone wrote: it is nested beyond reason") from None
        if not isinstance(document, dict):
            raise InputError(f"{path}: expected a mapping with template, workload, entry, knobs")
        self.document: dict[str, Any] = document
        unknown = sorted(str(key) for key in document.keys() - _KEYS)
        self.expect(not unknown, ", ".join(unknown), f"one of {', '.join(sorted(_KEYS))}")

    def expect(self, holds: bool, key: str, expected: str) -> None:
        if not holds:
            raise InputError(f"{self.path}: {key}: expected {expected}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.document.get(key, default)
        self.expect(isinstance(value, str) and (value != "" or default == ""), key, "a text")
        return str(value)

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.document.get(key) or {}
        self.expect(isinstance(value, dict), key, "a mapping of names")
        for name in value:
            self.expect(isinstance(name, str) and _NAME.match(name) is not None, f"{key}.{name}", "a name like tile_q")
        return dict(value)

    def dtypes(self, usual: tuple[str, ...]) -> tuple[str, ...]:
        found = self.document.get("dtypes", list(usual))
        fits = isinstance(found, list) and found and all(name in DTYPES for name in found)
        self.expect(bool(fits), "dtypes", f"a list of some of {', '.join(DTYPES)}")
        return tuple(found)

    def knobs(self) -> Iterator[Knob]:
        entries = self.mapping("knobs")
        self.expect(bool(entries), "knobs", "at least one knob")
        for name, entry in entries.items():
            key = f"knobs.{name}"
            if isinstance(entry, dict):
                unknown = sorted(str(k) for k in entry.keys() - {"values", "default", "doc", "kind"})
                self.expect(not unknown, f"{key}.{', '.join(unknown)}", "values, default, doc or kind")
            else:
                entry = {"values": entry}
            values: Any = entry.get("values")
            self.expect(isinstance(values, list) and len(values) > 0, key, "a list with at least one value")
            for value in values:
                fits = isinstance(value, bool | int | str)
                self.expect(fits, key, f"whole numbers, true/false or names, not {value!r}")
                if isinstance(value, int):
                    self.expect(-(2**31) <= value < 2**31, key, f"numbers that fit 32 bits, not {value}")
                if isinstance(value, str):
                    self.expect(_NAME.match(value) is not None, key, f"a name like xor, not {value!r}")
            self.expect(len({type(value) for value in values}) == 1, key, "values of one type")
            self.expect(isinstance(entry.get("doc", ""), str), f"{key}.doc", "a text")
            with _Located(str(self.path)):  # a Knob's own messages name the key
                yield Knob(
                    name,
                    tuple(values),
                    default=entry.get("default"),
                    kind=entry.get("kind", ""),
                    doc=entry.get("doc", ""),
                )

    def expressions(self, key: str) -> dict[str, Expression]:
        return {name: self.expression(f"{key}.{name}", text) for name, text in self.mapping(key).items()}

    def expression(self, key: str, text: Any) -> Expression:
        if isinstance(text, bool):
            text = str(text).lower()
        self.expect(isinstance(text, str | int), key, "an expression such as tile_q % 16 == 0")
        with self._located(key):
            return Expression.parse(str(text))

    def launch(self) -> Launch:
        launch = self.mapping("launch")
        unknown = sorted(launch.keys() - {"grid", "block", "shared_bytes", "cluster"})
        self.expect(not unknown, f"launch.{', '.join(unknown)}", "grid, block, shared_bytes or cluster")
        return Launch(
            grid=self._dimensions("grid", launch.get("grid")),
            block=self._dimensions("block", launch.get("block")),
            shared_bytes=self.expression("launch.shared_bytes", launch.get("shared_bytes", 0)),
            cluster=self._dimensions("cluster", launch["cluster"]) if "cluster" in launch else (),
        )

    def _dimensions(self, key: str, entry: Any) -> tuple[Expression, ...]:
        self.expect(isinstance(entry, list) and 1 <= len(entry) <= 3, f"launch.{key}", "a list of 1 to 3 expressions")
        return tuple(self.expression(f"launch.{key}[{i}]", text) for i, text in enumerate(entry))

    def _located(self, key: str) -> _Located:
        return _Located(f"{self.path}: {key}")


class _Located:
    """Puts the file and the key before an InputError that knows neither."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError):
            raise InputError(f"{self.place}: {error}") from None


def _check_names(base: Base) -> None:
    knobs = {knob.name for knob in base.knobs}
    for name in base.derived:
        if name in knobs:
            raise InputError(f"{base.path}: derived.{name}: expected a name that no knob has")
    workload = find_workload(base.workload)
    known = {*knobs, *base.derived, *workload.case(workload.default_case).constants()}
    for key, expressions in (("derived", base.derived), ("rules", base.rules)):
        for name, expression in expressions.items():
            of_device = {word for word in expression.names if word.startswith("device.")}  # checked when one is there
            base.check_expression(f"{key}.{name}", expression, known | of_device)


def _collect_sources(reader: _Reader, file: Path, root: Path, generated: str) -> dict[str, str]:
    """The template and every header it includes by quotes, each under the name by which it is included."""
    sources: dict[str, str] = {"": _read_source(reader, file)}
    waiting = [(file, sources[""])]
    folders = (file.parent, root, root / "common")
    while waiting:
        includer, text = waiting.pop()
        for name in _INCLUDE.findall(text):
            if name == generated or name in sources:
                continue
            place = f'template: #include "{name[:80]}" in {includer.name}'
            plain = name.isprintable() and len(name.encode()) < 256 and ".." not in Path(name).parts
            reader.expect(plain and not Path(name).is_absolute(), place, f"a path below {root}, without ..")
            hits = [path for folder in (includer.parent, *folders) if (path := folder / name).is_file()]
            inside = bool(hits) and hits[0].resolve().is_relative_to(root)
            reader.expect(inside, place, f"a file under {root}")
            sources[name] = _read_source(reader, hits[0])
            waiting.append((hits[0], sources[name]))
    return sources


def _read_source(reader: _Reader, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{reader.path}: template: {file} cannot be read ({error})") from None
