"""Measured spaces on disk, ours and others': which configurations, how long each took, where it failed.

Read: our own recordings (`evo_recording`), re-arranged spaces (`recorded_space`), Kernel Tuner cache files and
T4 files, each as JSON, gzipped or not. Written: our own recordings.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evo.errors import InputError
from evo.outcome import Measured, Outcome, Rejected, Stage
from evo.space import Configuration, Knob, SearchSpace, Value

FAILURES = {  # words of Kernel Tuner and T4 -> where on our street that is
    "CompilationFailedConfig": Rejected(Stage.BUILD, "compilation_failed"),
    "RuntimeFailedConfig": Rejected(Stage.LAUNCH, "runtime_failed"),
    "InvalidConfig": Rejected(Stage.RULES, "invalid"),
    "compile": Rejected(Stage.BUILD, "compilation_failed"),
    "runtime": Rejected(Stage.LAUNCH, "runtime_failed"),
    "constraints": Rejected(Stage.RULES, "invalid"),
    "correctness": Rejected(Stage.VERIFY, "wrong_output"),
    "timeout": Rejected(Stage.TIMEOUT, "timeout"),
}
PER_US = {"s": 1e6, "seconds": 1e6, "ms": 1e3, "milliseconds": 1e3, "miliseconds": 1e3, "us": 1.0, "microseconds": 1.0}


@dataclass(frozen=True)
class Recording:
    """A space whose configurations were measured, on one device, at one time, by somebody."""

    name: str
    space: SearchSpace
    outcomes: tuple[Outcome, ...]  # one per row of space.rows
    device: Mapping[str, Any]  # at least "name"
    date: str
    source: str
    kernel: str = ""
    workload: str = ""
    case: Any = None
    constants: Mapping[str, Value] = field(default_factory=dict)
    anchor: str = ""
    commit: str = ""

    @property
    def times_us(self) -> npt.NDArray[np.float64]:
        """Median time of every row of the space, nan where it was rejected."""
        return np.array([o.time_us if isinstance(o, Measured) else math.nan for o in self.outcomes])

    @property
    def optimum_us(self) -> float:
        """The least of all times."""
        return float(np.nanmin(self.times_us))

    def outcome(self, configuration: Configuration | Mapping[str, Value]) -> Outcome:
        """What came of this configuration.

        Raises: KeyError when it was not recorded.
        """
        indices = self.space.configuration(configuration).indices
        row = int(self.space.row_numbers(np.array([indices]))[0])
        if row < 0:
            raise KeyError(f"{dict(configuration)} is not in the recording {self.name}")
        return self.outcomes[row]


def load_recording(path: Path | str) -> Recording:
    """Read a recording in any of the four formats.

    Raises: InputError that names the file and what it lacks.
    """
    path = Path(path)
    data = _read_json(path)
    try:
        if data.get("format") == "evo_recording":
            return _checked(_own(path, data))
        if data.get("format") == "recorded_space":
            return _checked(_recorded_space(path, data))
        if "cache" in data and "tune_params_keys" in data:
            return _checked(_cachefile(path, data))
        if isinstance(data.get("results"), list):
            return _checked(_t4(path, data))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: not a complete recording: {what}") from None
    raise InputError(f"{path}: format: expected evo_recording, recorded_space, a Kernel Tuner cache file or a T4 file")


def _checked(recording: Recording) -> Recording:
    """The recording, whose texts, facts and times are what they are used as. Raises: InputError that names the key."""
    for key in ("name", "date", "kernel", "workload", "anchor", "commit"):
        if not isinstance(getattr(recording, key), str):
            raise InputError(f"{key}: expected a text, not {getattr(recording, key)!r}")
    device: Any = recording.device
    if not isinstance(device, Mapping):
        raise InputError(f"device: expected its name and facts, not {device!r}")
    for key, facts in (("device.limits", device.get("limits", {})), ("constants", recording.constants)):
        if not isinstance(facts, Mapping) or not all(isinstance(v, (bool, int, float, str)) for v in facts.values()):
            raise InputError(f"{key}: expected numbers and words by name, not {facts!r}")
    for number, outcome in enumerate(recording.outcomes):
        if isinstance(outcome, Measured) and outcome.anchor_us:
            _times(outcome.anchor_us, number, "anchor_us")
    return recording


def save_recording(
    path: Path | str,
    *,
    base: str,
    workload: str,
    case: Any,
    device: Mapping[str, Any],
    date: str,
    commit: str,
    knobs: Sequence[Knob],
    trials: Iterable[tuple[Sequence[int], Outcome]],
    constants: Mapping[str, Value] | None = None,
    anchor: str = "",
) -> None:
    """Write a campaign as `evo_recording`, gzipped, atomically and byte for byte the same for the same campaign.

    trials: value indices and what came of them; the later of two outcomes of one configuration is kept.
    """
    kept = {tuple(int(i) for i in indices): outcome for indices, outcome in trials}
    data = {
        "format": "evo_recording",
        "version": 1,
        "base": base,
        "workload": workload,
        "case": case,
        "device": dict(device),
        "date": date,
        "commit": commit,
        "knobs": [{"name": k.name, "values": list(k.values), "default": k.default} for k in knobs],
        "constants": dict(constants or {}),
        "anchor": anchor,
        "trials": [_trial(indices, outcome) for indices, outcome in kept.items()],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(gzip.compress(text.encode(), mtime=0))
            Path(temporary).chmod(0o644)  # mkstemp's are for this user alone, and a recording is to be shared
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path}: expected a writable path: {error.strerror}") from None


def _trial(indices: Sequence[int], outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Rejected):
        reason = {"stage": str(outcome.stage), "reason": outcome.reason, "detail": outcome.detail[:500]}
        return {"indices": list(indices), **reason}
    samples = {
        "samples_us": [_short(t) for t in outcome.samples_us],
        "anchor_us": [_short(t) for t in outcome.anchor_us],
    }
    return {"indices": list(indices), **samples}


def _short(time_us: float) -> float:
    return float(f"{time_us:.6g}")  # a clock of nanoseconds has no more digits


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        text = raw.decode()
    except OSError as error:
        raise InputError(f"{path}: expected a readable recording: {error.strerror or error}") from None
    except (EOFError, zlib.error, UnicodeDecodeError):
        raise InputError(f"{path}: expected JSON, gzipped or not; the file is damaged") from None
    for end in ("", "}}"):  # Kernel Tuner leaves a cache file open until its search has ended
        try:
            data = json.loads(text.rstrip().rstrip(",") + end)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}"
            continue
        except RecursionError:
            where = "objects nested beyond reason"
            continue
        if isinstance(data, dict):
            return data
        where = "its first character"
    raise InputError(f"{path}: expected a JSON object, broken at {where}")


def _own(path: Path, data: Mapping[str, Any]) -> Recording:
    if data.get("version") != 1:
        raise InputError(f"version: expected 1, not {data.get('version')!r}; a newer Evo may read it")
    if not isinstance(data["trials"], list) or not data["trials"]:
        raise InputError("trials: expected a list with at least one trial")
    if not isinstance(data["knobs"], list):
        raise InputError("knobs: expected a list of knobs")
    knobs = [Knob.of(knob) for knob in data["knobs"]]
    rows = [t["indices"] for t in data["trials"]]
    outcomes: list[Outcome] = []
    for number, trial in enumerate(data["trials"]):
        if "samples_us" in trial:
            outcomes.append(Measured(_times(trial["samples_us"], number), tuple(trial.get("anchor_us", ()))))
        else:
            outcomes.append(Rejected(Stage(trial["stage"]), trial["reason"], trial.get("detail", "")))
    return Recording(
        name=data["base"],
        space=SearchSpace.from_table(knobs, rows),
        outcomes=tuple(outcomes),
        device=data["device"],
        date=data["date"],
        source=str(path.name),
        kernel=data["base"],
        workload=data["workload"],
        case=data["case"],
        constants=data.get("constants", {}),
        anchor=data.get("anchor", ""),
        commit=data.get("commit", ""),
    )


def _times(samples_us: Sequence[float], number: int, key: str = "samples_us") -> tuple[float, ...]:
    if not samples_us or not all(isinstance(t, (int, float)) and math.isfinite(t) and t > 0 for t in samples_us):
        raise InputError(f"trials[{number}].{key}: expected positive times")
    return tuple(samples_us)


def _recorded_space(path: Path, data: Mapping[str, Any]) -> Recording:
    per_us = PER_US[data.get("objective", {}).get("unit", "ms")]
    kinds = [FAILURES.get(k, Rejected(Stage.MEASURE, k)) for k in data["failure_kinds"]]
    outcomes: list[Outcome] = []
    for time_ms, failure in zip(data["time_ms"], data["failure"], strict=True):
        failed = failure >= 0 or time_ms is None
        known = kinds[failure] if failure >= 0 else Rejected(Stage.MEASURE, "no_time")
        outcomes.append(known if failed else Measured((time_ms * per_us,)))
    source = data.get("source", {})
    return Recording(
        name=data["name"],
        space=SearchSpace.from_table(data["parameters"], data["configs"]),
        outcomes=tuple(outcomes),
        device={"name": data["device"]},
        date=str(data.get("date", "")),
        source=f"{source.get('repository', '')} {source.get('path', '')}".strip() or path.name,
        kernel=data["kernel"],
        case=data.get("problem_size"),
    )


def _cachefile(path: Path, data: Mapping[str, Any]) -> Recording:
    names = list(data["tune_params_keys"])
    knobs = [Knob(n, tuple(data["tune_params"][n])) for n in names]
    places = [{v: i for i, v in enumerate(k.values)} for k in knobs]
    objective = data.get("objective", "time")
    found: dict[tuple[int, ...], Outcome] = {}
    dates = []
    for entry in data["cache"].values():
        indices = tuple(place[entry[n]] for n, place in zip(names, places, strict=True))
        found[indices] = _outcome(entry.get(objective), entry.get("times"), PER_US["ms"])
        dates.append(str(entry.get("timestamp", "")))
    return _foreign(
        path, knobs, found, data["device_name"], max(dates, default=""), data["kernel_name"], data.get("problem_size")
    )


def _t4(path: Path, data: Mapping[str, Any]) -> Recording:
    results = data["results"]
    if not results:
        raise InputError("results: expected at least one result, got none")
    names = list(results[0]["configuration"])
    values = {n: list(dict.fromkeys(r["configuration"][n] for r in results)) for n in names}  # T4 lists no values
    knobs = [Knob(n, tuple(sorted(v) if not any(isinstance(x, str) for x in v) else v)) for n, v in values.items()]
    places = [{v: i for i, v in enumerate(k.values)} for k in knobs]
    metadata = data.get("metadata", {})
    per_us = PER_US[metadata.get("timeunit", "milliseconds")]
    found: dict[tuple[int, ...], Outcome] = {}
    dates = []
    for result in results:
        indices = tuple(place[result["configuration"][n]] for n, place in zip(names, places, strict=True))
        objective = result.get("objectives", ["time"])[0]
        measured = {m["name"]: m["value"] for m in result["measurements"]}
        word = result.get("invalidity", "correct")
        time = measured.get(objective) if word == "correct" else word
        found[indices] = _outcome(time, result.get("times", {}).get("runtimes"), per_us)
        dates.append(str(result.get("timestamp", "")))
    device = (metadata.get("hardware") or {}).get("device_name") or path.name.split(".")[0]
    return _foreign(path, knobs, found, device, max(dates, default=""), path.name.split(".")[0], None)


def _outcome(time: Any, samples: Any, per_us: float) -> Outcome:
    if isinstance(time, str):
        return FAILURES.get(time, Rejected(Stage.MEASURE, time))
    if not isinstance(time, (int, float)) or not math.isfinite(time) or not 0 < time < 1e20:
        return Rejected(Stage.MEASURE, "no_time")  # 1e20 is how older files say that there is none
    usable = isinstance(samples, list) and samples and all(isinstance(s, (int, float)) for s in samples)
    return Measured(tuple(float(s) * per_us for s in (samples if usable else [time])))


def _foreign(
    path: Path,
    knobs: list[Knob],
    found: Mapping[tuple[int, ...], Outcome],
    device: str,
    date: str,
    kernel: str,
    case: Any,
) -> Recording:
    return Recording(
        name=path.name.split(".")[0],
        space=SearchSpace.from_table(knobs, np.array(list(found), dtype=np.int64).reshape(len(found), len(knobs))),
        outcomes=tuple(found.values()),
        device={"name": device},
        date=date[:10],
        source=path.name,
        kernel=kernel,
        case=case,
    )
