"""A campaign as files: the recording that the replay target plays, T4 results, CSV, Parquet, an Optuna study."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evo.errors import InputError
from evo.export import Champion, check_out, header_text, json_artifact, json_text
from evo.outcome import Measured, Outcome, Stage
from evo.record import Campaign, Record, RecordedTrial, open_record
from evo.space import Knob, SearchSpace
from evo.targets.recorded import save_recording

# --- a recording -----------------------------------------------------------------------------------------------------


def record_campaign(campaign_id: int, *, out: Path | None, db: str) -> Path:
    """Write a measured campaign as a recording for the replay target; returns its path. Raises: InputError."""
    if out is not None:
        check_out(out)
    with open_record(db, create=False) as record:
        campaign = record.campaign(campaign_id)
        if campaign.replay:
            raise InputError(
                f"campaign {campaign_id} was replayed ({campaign.replay}); only measured ones are recorded"
            )
        knobs = [Knob.of(knob) for knob in campaign.space["knobs"]]
        space = SearchSpace(knobs)
        trials: list[tuple[Sequence[int], Outcome]] = []
        for trial in record.trials(campaign_id):
            samples = {s.name: s.values_us for s in record.samples(trial.id) if s.l2 == "warm"}
            outcome: Outcome = trial.outcome
            if isinstance(outcome, Measured):
                outcome = Measured(samples["variant"], samples.get("anchor", ()))
            trials.append((space.configuration(trial.configuration).indices, outcome))
    environment = campaign.environment
    folder = re.sub(r"[^a-z0-9]+", "-", environment.device.lower().removeprefix("nvidia ")).strip("-")
    path = out or Path("recordings") / folder / f"{campaign.base}.json.gz"
    save_recording(
        path,
        base=campaign.base,
        workload=campaign.workload,
        case=campaign.case_name,
        device={
            "name": environment.device,
            "arch": campaign.arch,
            "uuid": environment.uuid,
            "driver": environment.driver,
            "toolchain": environment.toolchain,
            "torch": environment.torch,
            "limits": campaign.options.get("limits", {}),
            "anchor": campaign.anchor,
            "baselines_us": dict(campaign.baselines),
        },
        date=datetime.fromtimestamp(campaign.started_at, UTC).isoformat(timespec="seconds"),
        commit=environment.git_sha,
        knobs=knobs,
        trials=trials,
        constants=campaign.constants,
        anchor=campaign.anchor,
    )
    return path


# --- T4 --------------------------------------------------------------------------------------------------------------

_INVALIDITY = {
    Stage.RULES: ("constraints", "InvalidConfig"),
    Stage.BUILD: ("compile", "CompilationFailedConfig"),
    Stage.GATES: ("constraints", "InvalidConfig"),
    Stage.LAUNCH: ("runtime", "RuntimeFailedConfig"),
    Stage.VERIFY: ("correctness", "InvalidConfig"),
    Stage.MEASURE: ("runtime", "RuntimeFailedConfig"),
    Stage.TIMEOUT: ("timeout", "RuntimeFailedConfig"),
    Stage.CRASH: ("runtime", "RuntimeFailedConfig"),
}


def t4_document(campaign: Campaign, trials: Iterable[tuple[RecordedTrial, Sequence[float]]]) -> dict[str, Any]:
    """A campaign in the T4 autotuning results format, schema 1.0.0; all times in milliseconds.

    trials: each with its warm samples in microseconds.
    """
    environment = campaign.environment
    metadata = {
        "timeunit": "miliseconds",  # spelt as in published T4 files
        "base": campaign.base,
        "workload": campaign.workload,
        "case": campaign.case_name,
        "dtype": campaign.dtype,
        "arch": campaign.arch,
        "device": environment.device,
        "driver": environment.driver,
        "toolchain": environment.toolchain,
        "evo": environment.evo,
        "git_sha": environment.git_sha,
        "replay": campaign.replay,
    }
    results = [_t4_result(trial, samples) for trial, samples in trials]
    return {"metadata": metadata, "results": results, "schema_version": "1.0.0"}


def _t4_result(trial: RecordedTrial, samples_us: Sequence[float]) -> dict[str, Any]:
    times: dict[str, Any] = {
        "compilation": 1e3 * trial.build_s,
        "framework": 1e3 * trial.measure_s,
        "search_algorithm": 0,
        "validation": 1e3 * trial.verify_s,
    }
    invalidity, value = ("correct", None) if trial.stage is None else _INVALIDITY[trial.stage]
    if trial.time_us is not None:
        times["runtimes"] = [sample / 1e3 for sample in samples_us] or [trial.time_us / 1e3]
    measurement: dict[str, Any] = {"name": "time", "value": value, "unit": ""}
    if trial.time_us is not None:
        measurement = {"name": "time", "value": trial.time_us / 1e3, "unit": "ms"}
    return {
        "timestamp": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(trial.recorded_at)) + "+00:00",
        "configuration": dict(trial.configuration),
        "times": times,
        "invalidity": invalidity,
        "correctness": int(trial.stage is None),
        "measurements": [measurement],
        "objectives": ["time"],
    }


def t4_of_campaign(record: Record, campaign_id: int) -> dict[str, Any]:
    """A recorded campaign as a T4 document."""
    trials = record.trials(campaign_id, details=False)
    samples = record.campaign_samples(campaign_id)
    return t4_document(record.campaign(campaign_id), ((trial, samples.get(trial.id, ())) for trial in trials))


# --- tables ----------------------------------------------------------------------------------------------------------

_PLAIN = ("number", "id", "variant_key", "time_us", "anchor_us", "ratio")
_TIMES = ("started_at", "recorded_at", "build_s", "verify_s", "measure_s", "worker", "same_as")


def trial_rows(trials: Sequence[RecordedTrial]) -> list[dict[str, Any]]:
    """One flat row per trial: knobs as columns "knob.NAME"; the same columns in every row."""
    knobs = list(dict.fromkeys(name for trial in trials for name in trial.configuration))
    return [
        {name: getattr(trial, name) for name in _PLAIN}
        | {"stage": str(trial.stage or ""), "reason": trial.reason}
        | {"operator": trial.origin.operator, "parents": " ".join(map(str, trial.origin.parents))}
        | {name: getattr(trial, name) for name in _TIMES}
        | {f"knob.{name}": trial.configuration.get(name) for name in knobs}
        for trial in trials
    ]


def trials_csv(trials: Sequence[RecordedTrial]) -> str:
    """Trials as CSV with a header line."""
    rows = trial_rows(trials)
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def trials_parquet(trials: Sequence[RecordedTrial]) -> bytes:
    """Trials as a Parquet file. Raises: InputError when pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError(
            "--format parquet: needs pyarrow; install it with: pip install 'evo-autotune[parquet]'"
        ) from None
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(trial_rows(trials)), sink)
    return bytes(sink.getvalue().to_pybytes())


def export_optuna(record: Record, campaign_id: int, storage_url: str) -> str:
    """Write a campaign as a study into an Optuna storage, for `optuna-dashboard STORAGE`; returns the study's name.

    Raises: InputError when the storage is the results database itself, cannot be opened or has that study already.
    """
    import optuna

    if storage_url.startswith("sqlite:///"):
        file = Path(storage_url.removeprefix("sqlite:///"))
        if file.resolve() == Path(record.name).resolve():
            raise InputError(f"{storage_url}: is the results database; expected a file of its own for Optuna's tables")
        if file.exists() and not file.is_file():  # SQLite leaves its journal beside a device
            raise InputError(f"{storage_url}: --storage: is no file; expected one for Optuna's tables")
    campaign = record.campaign(campaign_id)
    trials = record.trials(campaign_id, details=False)
    study_name = f"evo-{campaign.base}-{campaign_id}"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(storage=storage_url, study_name=study_name, direction="minimize")
    except optuna.exceptions.DuplicatedStudyError:
        raise InputError(f"{storage_url}: has study {study_name} already; delete it or name another file") from None
    except Exception as error:  # noqa: BLE001 - whatever the storage's driver raises is about the URL
        words = " ".join(str(error).split())[:200]
        raise InputError(f"{storage_url}: cannot be opened as an Optuna storage: {words}") from None
    for name, value in (("base", campaign.base), ("case", campaign.case_name), ("device", campaign.environment.device)):
        study.set_user_attr(name, value)
    study.set_user_attr("replay", campaign.replay)
    distributions = _distributions(optuna, campaign, trials)
    study.add_trials([_frozen_trial(optuna, trial, distributions) for trial in trials])
    return study_name


def _distributions(optuna: Any, campaign: Campaign, trials: Sequence[RecordedTrial]) -> dict[str, Any]:
    """Each knob as a choice among its values: those of the space, and any seen besides."""
    choices: dict[str, dict[Any, None]] = {}
    for knob in campaign.space.get("knobs", ()):
        choices[knob["name"]] = dict.fromkeys(knob["values"])
    for trial in trials:
        for name, value in trial.configuration.items():
            choices.setdefault(name, {})[value] = None
    return {name: optuna.distributions.CategoricalDistribution(tuple(values)) for name, values in choices.items()}


def _frozen_trial(optuna: Any, trial: RecordedTrial, distributions: Mapping[str, Any]) -> Any:
    attributes = {"number": trial.number, "variant": trial.variant_key, "operator": trial.origin.operator}
    attributes |= {"stage": str(trial.stage or ""), "reason": trial.reason, "ratio": trial.ratio}
    states = optuna.trial.TrialState
    return optuna.trial.create_trial(
        state=states.FAIL if trial.time_us is None else states.COMPLETE,
        value=trial.time_us,
        params=dict(trial.configuration),
        distributions={name: distributions[name] for name in trial.configuration},
        user_attrs=attributes,
    )


def champion_file(record: Record, champion: Champion, kind: str) -> str:
    """A champion as text of one kind: its header, its JSON artifact, or its whole campaign in T4.

    Raises: InputError for another kind.
    """
    if kind == "header":
        return header_text(champion)
    if kind == "json":
        return json_text(json_artifact(champion))
    if kind == "t4":
        return json_text(t4_of_campaign(record, champion.campaign.id))
    raise InputError(f"--format {kind}: expected header, json or t4")
