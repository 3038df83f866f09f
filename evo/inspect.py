"""One base or one variant looked at: knobs and rules, a build, a verification, a timing beside the baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evo.base import Base, find_base
from evo.errors import InputError
from evo.live import LiveReport, check_live
from evo.measure import HOST_TIMING, Timing, gain_interval, median_interval
from evo.outcome import Built, Contest, Rejected
from evo.profile import Subject, profile
from evo.record import Profile, is_missing, open_record
from evo.space import Configuration, SearchSpace, Value
from evo.targets import DeviceFacts, build
from evo.variant import Variant, make_variant

if TYPE_CHECKING:
    from evo.seat import Seat

USUAL_ARCH = "sm_89"  # whose limits a CUDA base is shown and checked with when nothing is said: the smallest in use


def describe_base(name: str, *, case: str, dtype: str, causal: bool, arch: str) -> dict[str, Any]:
    """Knobs, rules and size of a base on one architecture. Raises: InputError."""
    base = find_base(name)
    facts, _ = _facts(base, arch, USUAL_ARCH)
    chosen = base.case(case, dtype, causal)
    known = {**facts.limits, **chosen.constants()}
    space = base.space(known)
    base.check_use(space, known, chosen.dimensions())
    return {
        "name": base.name,
        "doc": base.doc,
        "file": str(base.path),
        "template": base.template,
        "target": base.language,
        "case": chosen.name,
        "arch": facts.arch,
        "combinations": space.combinations,
        "admissible": space.size,
        "default": dict(space.default),
        "knobs": [knob.document() for knob in space.knobs],
        "rules": {name: rule.text for name, rule in base.rules.items()},
        "gates": {name: gate.text for name, gate in base.gates.items()},
    }


def check_base(name: str, *, case: str, dtype: str, causal: bool, arch: str, places: int) -> LiveReport:
    """Which knobs change the binary, found by building. Raises: InputError."""
    base = find_base(name)
    facts, toolchain = _facts(base, arch, USUAL_ARCH)
    constants = base.case(case, dtype, causal).constants()
    return check_live(base, constants=constants, facts=facts, toolchain=toolchain, places=places)


def build_one(
    name: str, *, case: str, dtype: str, causal: bool, arch: str, knobs: Sequence[str] = ()
) -> dict[str, Any]:
    """Build one variant and report what the toolchain said. Raises: InputError."""
    base = find_base(name)
    facts, toolchain = _facts(base, arch)
    variant = _variant(base, base.case(case, dtype, causal), facts, toolchain, knobs)
    built = build(variant)
    document: dict[str, Any] = {
        "base": base.name,
        "arch": facts.arch,
        "toolchain": toolchain,
        "key": variant.key,
        "configuration": dict(variant.configuration),
        "rejected": asdict(built) if isinstance(built, Rejected) else None,
    }
    if isinstance(built, Built):
        resources = asdict(built.resources) if base.language == "cuda" else {}  # a C++ compiler reports none
        document |= {"resources": resources, "build_s": built.build_s, "binary_hash": built.binary_hash}
    return document


def verify_one(
    name: str, *, case: str, dtype: str, causal: bool, knobs: Sequence[str] = (), seeds: int = 3
) -> dict[str, Any]:
    """Check one variant on every case the workload has, in a process of its own. Raises: InputError."""
    base = find_base(name)
    with _seat(base, base.case(case, dtype, causal)) as seat:
        variant = _variant(base, seat.spec.case, seat.ready.facts, seat.ready.toolchain, knobs)
        built = build(variant)
        verified = built if isinstance(built, Rejected) else seat.verify(variant, built, seeds)
    document: dict[str, Any] = {"base": base.name, "key": variant.key, "device": seat.ready.facts.name}
    document |= {"configuration": dict(variant.configuration), "case": seat.spec.case.name}
    if isinstance(verified, Rejected):
        return {**document, "rejected": asdict(verified), "errors": []}
    return {**document, "rejected": None, "errors": [asdict(error) for error in verified.errors]}


def bench_one(
    name: str,
    *,
    case: str,
    dtype: str,
    causal: bool,
    knobs: Sequence[str] = (),
    iters: int = 100,
    db: str = "results.db",
) -> dict[str, Any]:
    """Time one variant beside the baselines, each round in a fresh order. Raises: InputError.

    The variant is the one that `knobs` names, else the champion of that case, else the base's default.
    """
    base = find_base(name)
    with _seat(base, base.case(case, dtype, causal)) as seat:
        facts, toolchain = seat.ready.facts, seat.ready.toolchain
        variant, origin = _chosen(base, seat.spec.case, facts, toolchain, knobs, db)
        built = build(variant)
        contest = built if isinstance(built, Rejected) else seat.contest([(variant, built)], iters)
    document: dict[str, Any] = {"base": base.name, "case": seat.spec.case.name, "device": facts.name, "rounds": iters}
    document |= {"configuration": dict(variant.configuration), "key": variant.key, "variant": origin}
    if isinstance(contest, Rejected) or variant.key in contest.rejected:
        rejected = contest if isinstance(contest, Rejected) else contest.rejected[variant.key]
        return {**document, "rejected": asdict(rejected), "times": []}
    return {**document, "rejected": None, "times": _time_rows(contest, variant.key)}


def profile_one(
    name: str, *, case: str, dtype: str, causal: bool, knobs: Sequence[str] = (), db: str = "results.db"
) -> dict[str, Any]:
    """Hardware counters of one variant (chosen as for `bench_one`), kept in the database if it is there.

    Raises: InputError, also for a base that no CUDA profiler can look at.
    """
    base = find_base(name)
    if base.language != "cuda":
        raise InputError(f"--base {name}: expected a CUDA base; Nsight Compute profiles nothing else")
    chosen = base.case(case, dtype, causal)
    _check_device(base.language, f"--base {name}: ")
    facts, toolchain = _facts(base, "")
    variant, origin = _chosen(base, chosen, facts, toolchain, knobs, db)
    built = build(variant)
    if isinstance(built, Rejected):
        raise InputError(f"{base.name}: the variant does not build: {built.reason}")
    counters = profile(Subject(variant, built, base.workload, chosen))
    document = {"base": base.name, "case": chosen.name, "device": facts.name, "variant": origin, "key": variant.key}
    document |= {"configuration": dict(variant.configuration), "counters": counters}
    return {**document, "kept": _keep(Profile(variant.key, facts.name, chosen.name, counters), db)}


def _keep(found: Profile, db: str) -> bool:
    if is_missing(db):
        return False
    with open_record(db, create=False) as record:
        if not record.trials_of(found.variant_key):
            return False
        record.record_profile(found)
    return True


def _chosen(
    base: Base, case: Any, facts: DeviceFacts, toolchain: str, knobs: Sequence[str], db: str
) -> tuple[Variant, str]:
    """The variant that `knobs` names, else the champion of the case, else the default; and which of them it is."""
    if not knobs and (champion := _champion(base, case, facts, db)) is not None:
        space = base.space({**facts.limits, **case.constants()})
        with contextlib.suppress(InputError):  # a champion of an older version of the base
            return bind_variant(base, space, space.configuration(champion), case, facts, toolchain), "champion"
    return _variant(base, case, facts, toolchain, knobs), "named" if knobs else "default"


def _time_rows(contest: Contest, key: str) -> list[dict[str, Any]]:
    """p50 and interval of every contender, warm and cold, fastest first, and how many times as fast the variant is."""
    rows = []
    for l2, times in (("warm", contest.warm_us), ("cold", contest.cold_us)):
        for name, samples in times.items():
            time = median_interval(samples)
            row: dict[str, Any] = {"contender": "this variant" if name == key else name, "l2": l2}
            row |= {"p50_us": time.median, "low_us": time.low, "high_us": time.high}
            row["ratio"] = gain_interval(times[key], samples).median if name != key else 1.0
            rows.append(row)
    return sorted(rows, key=lambda row: (row["l2"] == "cold", row["p50_us"]))


def _facts(base: Base, arch: str, usual: str = "") -> tuple[DeviceFacts, str]:
    """Device facts to build for, and the toolchain: no device is needed.

    arch: "" for the usual one, or, where there is none, this device's. Raises: InputError.
    """
    if base.language == "host":
        if arch:
            raise InputError(f"--arch {arch}: {base.name} is a template for host, built for this machine's processor")
        from evo.targets.host import HostTarget

        target = HostTarget()
        return target.facts(), target.toolchain()
    from evo.targets import nvrtc

    arch = arch or usual
    if not arch:
        from evo.targets.cuda import CudaTarget

        return CudaTarget().facts(), nvrtc.toolchain()
    return DeviceFacts(name=f"any {arch}", arch=arch, limits=nvrtc.arch_limits(arch)), nvrtc.toolchain()


def _variant(base: Base, case: Any, facts: DeviceFacts, toolchain: str, knobs: Sequence[str]) -> Variant:
    known = {**facts.limits, **case.constants()}
    space = base.space(known)
    base.check_use(space, known, case.dimensions())
    configuration = configured(space, knobs)
    return bind_variant(base, space, configuration, case, facts, toolchain)


def bind_variant(
    base: Base, space: SearchSpace, configuration: Configuration, case: Any, facts: DeviceFacts, toolchain: str
) -> Variant:
    """One configuration of a base as a variant for a case and a device."""
    return make_variant(
        base,
        space,
        configuration,
        constants=case.constants(),
        facts=facts.limits,
        arch=facts.arch,
        toolchain=toolchain,
    )


def configured(space: SearchSpace, assignments: Sequence[str]) -> Configuration:
    """The default configuration with some knobs set by "name=value" texts.

    Raises: InputError for an unknown knob or value, or a rule that the result breaks.
    """
    values: dict[str, Value] = dict(space.default)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        knob = next((knob for knob in space.knobs if knob.name == name), None)
        if not equals or knob is None:
            raise InputError(f"--knob {assignment}: expected name=value, name one of {', '.join(values)}")
        known = {str(value).lower(): value for value in knob.values}
        if text.lower() not in known:
            raise InputError(f"--knob {assignment}: expected one of {', '.join(known)}")
        values[name] = known[text.lower()]
    configuration = space.configuration(values)
    broken = space.violated(configuration)
    if broken:
        rules = "; ".join(f"{rule}: {space.rules[rule].text}" for rule in broken)
        raise InputError(f"--knob: this configuration breaks {rules}")
    return configuration


def _champion(base: Base, case: Any, facts: DeviceFacts, db: str) -> dict[str, Value] | None:
    if is_missing(db):
        return None
    with open_record(db, create=False) as record:
        elites = record.elites(base=base.name, case_name=case.name, dtype=case.dtype, arch=facts.arch)
    return dict(elites[0].configuration) if elites else None


def _seat(base: Base, case: Any) -> contextlib.AbstractContextManager[Seat]:
    return device_seat(base.language, base.workload, case, what=f"--base {base.name}: ")


def _check_device(language: str, what: str) -> None:
    """Raises: InputError, begun with `what`, when a base of this language has no device here."""
    from evo.targets.nvml import gpu_names

    if language == "cuda" and not gpu_names():
        raise InputError(f"{what}no NVIDIA GPU here to run it; `evo build --arch sm_90` needs none")


@contextlib.contextmanager
def device_seat(language: str, workload: str, case: Any, *, what: str = "") -> Iterator[Seat]:
    """This machine's device in a worker process, without Ray and without a spare.

    what: begins the message when there is no such device. Raises: InputError.
    """
    from evo.seat import Seat, WorkerSpec

    _check_device(language, what)
    timing = HOST_TIMING if language == "host" else Timing()
    seat = Seat(WorkerSpec(language, workload, case, timing), spare=False)
    try:
        yield seat
    finally:
        seat.close()
