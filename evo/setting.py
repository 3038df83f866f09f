"""What a search was asked for, and the setting that this gives it: which base, on which target, for which case."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evo.base import Base, find_base
from evo.errors import InputError
from evo.space import Value
from evo.targets.nvml import gpu_names
from evo.targets.recorded import Recording
from evo.targets.replay import describe, find_recording, open_recording, recorded_base
from evo.workloads import find_workload

TARGETS = ("auto", "cuda", "host", "replay")
_ANSWER_S = 5.0  # that a cluster's head may take to be reached
_WOULD_WORK = (
    "a machine with an NVIDIA GPU would work, so would --ray-address of a cluster that has one, "
    "--recording FILE, or --base cpu_attention, which tunes on any machine"
)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What the user asked for."""

    base: str = ""
    case: str = ""
    dtype: str = ""
    causal: bool = False
    target: str = "auto"
    proposer: str = "evo"
    budget: int | None = 200
    time_limit_s: float | None = None
    seed: int = 0
    db: str = "results.db"
    recording: Path | None = None
    ray_address: str | None = None
    gpu_type: str | None = None
    resume: bool = False
    rounds: int = 40  # of the promotion's contest
    margin: float = 0.01  # that a newcomer must be faster than a champion by, as a fraction
    allow_dead_knobs: bool = False
    proof: bool = True  # before the search: every knob is live, and wrong kernels are caught
    sanitize: bool = True  # run compute-sanitizer on what is to be promoted, where it is installed
    build_timeout_s: float = 60.0  # one compilation
    verify_timeout_s: float = 30.0  # one variant's verification
    measure_timeout_s: float = 30.0  # one variant's timing
    contest_timeout_s: float = 600.0  # each part of the promotion's contest
    own_budget: bool = False  # with resume: the campaign's own budget instead of this one
    patience: int | None = None  # evaluations without prospect that end the search
    control_share: float | None = None  # of the trials that random search proposes; None: no control arm


@dataclass(frozen=True, slots=True)
class Setting:
    """The place of a search before it starts: target resolved, case understood."""

    base: Base
    target: str
    case: Any
    recording: Recording | None

    @property
    def case_name(self) -> str:
        """As elites are kept by it; a recording of others may name no case."""
        if self.recording is not None:
            return str(self.recording.case or "recorded")
        return str(self.case.name)

    @property
    def dtype(self) -> str:
        """Empty for a recording of others that does not say."""
        if self.recording is not None:
            return str(self.recording.constants.get("dtype", ""))
        return str(self.case.dtype)

    @property
    def replay(self) -> str:
        """Empty where times are measured; else whose recorded times are played."""
        return describe(self.recording) if self.recording is not None else ""


def resolve(request: SearchRequest) -> Setting:
    """Which base, on which target, for which case.

    Raises: InputError when there is nothing here that could serve; it says what would.
    """
    if request.target not in TARGETS:
        raise InputError(f"--target {request.target}: expected one of {', '.join(TARGETS)}")
    if request.ray_address:
        _knock(request.ray_address)
    setting = _find_setting(request)
    if request.gpu_type and setting.target != "cuda":
        what = f"uses none of a cluster's GPUs: {setting.base.name} is for {setting.target} here"
        raise InputError(f"--gpu-type {request.gpu_type}: this search {what}; {_WOULD_WORK}")
    return setting


def check_space(request: SearchRequest, setting: Setting) -> None:
    """Find out before Ray starts that nothing is admissible or launchable, where the worker's machine is this one.

    Of several GPUs one that serves is enough. Raises: InputError.
    """
    if setting.recording is not None or request.ray_address:
        return
    refused: InputError | None = None
    for limits in _limits_here(setting.target):
        try:
            known = {**limits, **setting.case.constants()}
            setting.base.check_use(setting.base.space(known), known, setting.case.dimensions())
            return
        except InputError as error:
            refused = error
    if refused is not None:
        raise refused


def check_memory(request: SearchRequest, setting: Setting) -> None:
    """Find out before Ray starts that the oracle's answer does not fit a worker of this machine. Raises: InputError."""
    if setting.target != "host" or request.ray_address:
        return
    from evo.targets.host import worker_bytes

    needed, given = find_workload(setting.base.workload).oracle_bytes(setting.case), worker_bytes()
    if needed > given:
        words = (
            f"the oracle takes at least {needed / 2**30:,.1f} GiB of memory; a worker has {given / 2**30:,.1f} GiB here"
        )
        raise InputError(f"--case {setting.case.name}: {words}")


def _limits_here(target: str) -> list[Mapping[str, Value]]:
    if target == "cuda":
        from evo.targets.driver import gpu_limits

        return [*gpu_limits()]
    from evo.targets.host import HostTarget

    return [HostTarget().facts().limits]


def _find_setting(request: SearchRequest) -> Setting:
    if request.recording is not None:
        if request.target not in ("auto", "replay"):
            raise InputError(f"--target {request.target}: --recording plays recorded times; expected auto or replay")
        recording = open_recording(request.recording)
        if request.base:
            base = find_base(request.base)
            _check_recording(base, recording, request.recording)
        else:
            base = recorded_base(recording, request.recording)
        _check_asked(request, recording, request.recording)
        return Setting(base, "replay", recording.case, recording)
    base = find_base(request.base)
    target = request.target
    if target == "auto":
        target = _choose_target(base, request)
    if target == "replay":
        path = find_recording(base.name)
        if path is None:
            raise InputError(f"--target replay: there is no recording of {base.name}; --recording FILE plays another")
        recording = open_recording(path)
        _check_recording(base, recording, path)
        _check_asked(request, recording, path)
        return Setting(base, "replay", recording.case, recording)
    if target != base.language:
        raise InputError(f"--target {target}: {base.name} is a template for {base.language}; expected {base.language}")
    if target == "cuda" and not request.ray_address and not gpu_names():
        raise InputError(f"--target cuda: no NVIDIA GPU here; {_WOULD_WORK}")
    return Setting(base, target, base.case(request.case, request.dtype, request.causal), None)


def _knock(address: str) -> None:
    """Say at once that nothing listens there: Ray would try for minutes. Raises: InputError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto", which Ray resolves
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        words = f"nothing answers there ({error}); expected HOST:PORT of a Ray head node"
        raise InputError(f"--ray-address {address}: {words}") from None


def _choose_target(base: Base, request: SearchRequest) -> str:
    if base.language == "host":
        return "host"
    if request.ray_address or gpu_names():
        return "cuda"
    if find_recording(base.name) is not None:
        return "replay"
    raise InputError(f"no GPU here and no recording of {base.name}; {_WOULD_WORK}")


def _check_asked(request: SearchRequest, recording: Recording, path: Path) -> None:
    """A recording plays the case it was made of, no other."""
    played = {
        "--case": (request.case, str(recording.case or "")),
        "--dtype": (request.dtype, str(recording.constants.get("dtype", ""))),
        "--causal": ("yes" if request.causal else "", "yes" if recording.constants.get("causal") else "no"),
    }
    for option, (asked, recorded) in played.items():
        if asked and asked != recorded and f"{asked}-causal" != recorded:
            words = f"{option[2:]} {recorded or 'unsaid'}"
            raise InputError(f"{option} {asked}: {path} was recorded with {words}; only a GPU times another")


def _check_recording(base: Base, recording: Recording, path: Path) -> None:
    ours = {knob.name: set(knob.values) for knob in base.knobs}
    for knob in recording.space.knobs:
        if not set(knob.values) <= ours.get(knob.name, set()):
            raise InputError(
                f"{path}: knobs.{knob.name}: not of this {base.name}; expected one recorded with its knobs"
            )
