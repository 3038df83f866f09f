"""A champion as files: the kernel header that was measured and the JSON artifact with all that is known of it.

The exported header holds the measured header unchanged between two marker lines. So its variant's key is computed
again by `evo.variant.variant_key(sources, measured_text(exported), entry, arch, toolchain)`: see `exported_key`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evo.base import base_paths
from evo.errors import InputError
from evo.expression import nearest_name, value_text
from evo.launch_text import launch_text
from evo.outcome import Resources
from evo.record import Campaign, Elite, Record, RecordedTrial, Samples, VariantRecord
from evo.record.open import SQLITE_MAGIC

BEGIN = "// ---- measured text begins: do not edit, the variant's key is computed from it ----\n"
END = "// ---- measured text ends ----\n"
ARTIFACT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Champion:
    """One measured variant with what its provenance needs.

    time_low_us, time_high_us, ratio_low, ratio_high: 95 % bootstrap intervals of the medians; None with one sample.
    promoted_at: None for a trial that was not promoted.
    """

    variant: VariantRecord
    campaign: Campaign
    measured_at: float
    time_us: float
    samples: tuple[Samples, ...] = ()
    time_low_us: float | None = None
    time_high_us: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    anchor: str = ""
    rank: int | None = None
    promoted_at: float | None = None
    trial: RecordedTrial | None = None

    @property
    def rounds(self) -> int:
        """Warm samples of the variant."""
        return sum(len(item.values_us) for item in self.samples if item.name == "variant" and item.l2 == "warm")


# --- from the record -------------------------------------------------------------------------------------------------


def find_champion(
    record: Record, base: str, *, case_name: str | None = None, dtype: str | None = None, arch: str | None = None
) -> Champion:
    """The best elite of a base.

    Raises: InputError when there is none, or when it takes case, dtype or arch to tell which is meant.
    """
    elites = [e for e in record.elites(base=base, case_name=case_name, dtype=dtype, arch=arch) if e.rank == 1]
    if not elites:
        at = "".join(f", {value}" for value in (case_name, dtype, arch) if value)
        near = "" if base in base_paths() else nearest_name(base, {e.place.base for e in record.elites()} - {base})
        raise InputError(f"{record.name}: no elite of base {base}{at}{near or f'; run: evo search --base {base}'}")
    if len(elites) > 1:
        places = "; ".join(f"--case {e.place.case_name} --dtype {e.place.dtype} --arch {e.place.arch}" for e in elites)
        raise InputError(f"{record.name}: base {base} has {len(elites)} champions; add one of: {places}")
    return champion_of_elite(record, elites[0])


def champion_of_elite(record: Record, elite: Elite) -> Champion:
    """An elite with the times of its promotion."""
    promotion = elite.promotion
    samples = tuple(record.samples(promotion_id=elite.promotion_id))
    measured = next((trial for trial in record.trials_of(elite.variant_key) if trial.time_us is not None), None)
    champion = Champion(
        variant=record.variant(elite.variant_key),
        campaign=record.campaign(elite.campaign_id),
        measured_at=promotion.at,
        time_us=promotion.time_us or 0.0,
        samples=samples,
        time_low_us=promotion.time_low_us,
        time_high_us=promotion.time_high_us,
        ratio=promotion.ratio,
        ratio_low=promotion.ratio_low,
        ratio_high=promotion.ratio_high,
        anchor=promotion.anchor,
        rank=elite.rank,
        promoted_at=elite.since,
        trial=measured,
    )
    return with_intervals(champion)


def champion_of_trial(record: Record, trial: RecordedTrial) -> Champion:
    """A measured trial, promoted or not. Raises: InputError when it has no time."""
    if trial.time_us is None:
        raise InputError(
            f"{record.name}: trial {trial.id} was rejected ({trial.stage}: {trial.reason}); nothing to export"
        )
    champion = Champion(
        variant=record.variant(trial.variant_key),
        campaign=record.campaign(trial.campaign_id),
        measured_at=trial.recorded_at,
        time_us=trial.time_us,
        samples=tuple(record.samples(trial.id)),
        ratio=trial.ratio,
        anchor=str(trial.environment.get("anchor", "")),
        trial=trial,
    )
    return with_intervals(champion)


def with_intervals(champion: Champion) -> Champion:
    """The champion with the intervals it lacks computed from its raw samples."""
    from evo.measure import gain_interval, median_interval

    ours = next((s.values_us for s in champion.samples if (s.name, s.l2) == ("variant", "warm")), ())
    theirs = next((s.values_us for s in champion.samples if (s.name, s.l2) == ("anchor", "warm")), ())
    found: dict[str, float] = {}
    if len(ours) > 1 and champion.time_low_us is None:
        time_us = median_interval(ours)
        found |= {"time_low_us": time_us.low, "time_high_us": time_us.high}
    if len(ours) > 1 and len(ours) == len(theirs) and champion.ratio_low is None:
        ratio = gain_interval(ours, theirs)
        found |= {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
    return dataclasses.replace(champion, **found)  # type: ignore[arg-type]


# --- header ----------------------------------------------------------------------------------------------------------


def header_text(champion: Champion) -> str:
    """The header that was measured, unchanged, under its provenance and inside an include guard."""
    variant = champion.variant
    if not variant.header:
        raise InputError(f"variant {variant.key}: has no header: it was recorded before one was made")
    guard = "EVO_CONFIG_" + re.sub(r"\W", "_", f"{variant.base}_{variant.key[:12]}").upper() + "_H_"
    geometry = launch_text(variant, _dimensions_of(campaign=champion.campaign))
    comment = "".join(f"// {one_line(text)}".rstrip() + "\n" for text in provenance(champion))
    return f"{comment}#ifndef {guard}\n#define {guard}\n{BEGIN}{variant.header}{END}{geometry}#endif  // {guard}\n"


def _dimensions_of(campaign: Campaign) -> list[str]:
    """Names of the run-time dimensions of the campaign's workload; none for one that is not known here."""
    from evo.workloads import find_workload

    try:
        workload = find_workload(campaign.workload)
    except InputError:
        return []
    return list(workload.case(workload.default_case).dimensions())


def provenance(champion: Champion) -> list[str]:
    """Where the numbers come from, line by line."""
    variant, campaign = champion.variant, champion.campaign
    environment = campaign.environment
    knobs = ", ".join(f"{name}={value_text(value)}" for name, value in variant.configuration.items())
    constants = ", ".join(f"{name}={value_text(value)}" for name, value in variant.constants.items())
    done = "replayed" if campaign.replay else "measured"  # a replayed time is never called a measured one
    standing = f"elite, rank {champion.rank}" if champion.rank else f"{done}, not promoted"
    lines = [
        f"Evo {environment.evo}: {variant.header_name or 'evo_config'} of base {variant.base}, {standing}.".replace(
            "Evo :", "Evo:"
        ),
        f"case:      {campaign.case_name} ({constants})",
        f"knobs:     {knobs}",
        f"latency:   {latency_words(champion)}",
        f"ratio:     {ratio_words(champion)}",
        f"device:    {environment.device}, {variant.arch}, driver {environment.driver or 'unknown'}",
        f"toolchain: {variant.toolchain or environment.toolchain}",
        f"{done}:  {utc(champion.measured_at)}",
        f"commit:    {environment.git_sha or 'unknown'}{' with uncommitted changes' if environment.dirty else ''}",
        f"variant:   {variant.key}",
    ]
    if campaign.replay:
        since = f"the template is as it is here, not as it was at {environment.git_sha or 'the time'}"
        lines.append(f"replay:    {campaign.replay}; {since}")
    key = "hash of the sources, the text between the markers, entry, arch and toolchain"
    return [*lines, f"key:       {key} (evo.export.exported_key)"]


def latency_words(champion: Champion) -> str:
    """ "12.30 us (95 % interval 12.28 to 12.35, 30 samples, warm L2)"."""
    known = champion.time_low_us is not None and champion.time_high_us is not None
    interval = f"95 % interval {champion.time_low_us:.3f} to {champion.time_high_us:.3f}, " if known else ""
    return f"{champion.time_us:.3f} us ({interval}{champion.rounds} samples, warm L2)"


def ratio_words(champion: Champion) -> str:
    if champion.ratio is None:
        return "no baseline was timed beside it"
    known = champion.ratio_low is not None and champion.ratio_high is not None
    interval = f" (95 % interval {champion.ratio_low:.3f} to {champion.ratio_high:.3f})" if known else ""
    return f"{champion.ratio:.3f} times as fast as {champion.anchor or 'the anchor'}, timed in the same run{interval}"


def measured_text(exported: str) -> str:
    """The generated header inside an exported one, byte for byte. Raises: InputError when the markers are gone."""
    start, end = exported.find(BEGIN), exported.rfind(END)
    if start < 0 or end < start:
        raise InputError("header: expected the two lines that mark the measured text; was it edited?")
    return exported[start + len(BEGIN) : end]


def exported_key(exported: str, variant: VariantRecord) -> str:
    """The key that the exported header has with the variant's sources, entry, arch and toolchain."""
    from evo.variant import variant_key

    return variant_key(variant.sources, measured_text(exported), variant.entry, variant.arch, variant.toolchain)


def one_line(text: str) -> str:
    """Text that stays within one // comment: no line breaks, no trailing backslash."""
    return re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+", " ", text).rstrip("\\ ")


def utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


# --- JSON ------------------------------------------------------------------------------------------------------------


def json_artifact(champion: Champion) -> dict[str, Any]:
    """Everything known of a champion, its raw samples included, as strict JSON values."""
    variant, campaign = champion.variant, champion.campaign
    return {
        "format": "evo-artifact",
        "version": ARTIFACT_VERSION,
        "base": variant.base,
        "workload": campaign.workload,
        "case": campaign.case_name,
        "dtype": campaign.dtype,
        "variant": {
            "key": variant.key,
            "configuration": dict(variant.configuration),
            "constants": dict(variant.constants),
            "derived": dict(variant.derived),
            "arch": variant.arch,
            "entry": variant.entry,
            "toolchain": variant.toolchain,
            "binary_hash": variant.binary_hash,
            "resources": dataclasses.asdict(variant.resources or Resources()),
            "header_name": variant.header_name,
            "header": variant.header,
            "sources": dict(variant.sources),
            "launch": dict(variant.launch),
        },
        "time_us": {"median": champion.time_us, "low": champion.time_low_us, "high": champion.time_high_us},
        "ratio": {
            "median": champion.ratio,
            "low": champion.ratio_low,
            "high": champion.ratio_high,
            "anchor": champion.anchor,
        },
        "samples": [dataclasses.asdict(item) for item in champion.samples],
        "promoted_at": utc(champion.promoted_at) if champion.promoted_at else None,
        "rank": champion.rank,
        "replayed_at" if campaign.replay else "measured_at": utc(champion.measured_at),
        "campaign": {
            "id": campaign.id,
            "proposer": campaign.proposer,
            "seed": campaign.seed,
            "started_at": utc(campaign.started_at),
            "target": campaign.target,
            "replay": campaign.replay,
            "kill_rate": campaign.kill_rate,
        },
        "environment": dataclasses.asdict(campaign.environment),
    }


# --- files -----------------------------------------------------------------------------------------------------------


def write_file(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all. Raises: InputError when it cannot be written."""
    check_out(path)
    target = Path(os.path.realpath(path))  # a link is followed, not replaced
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
        temporary = None
    except OSError as error:
        raise InputError(f"{path}: -o: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def check_out(path: str | Path) -> None:
    """Raises: InputError when a file put there would take the place of something that is no file, or of a database."""
    target = Path(path)
    try:
        if target.is_dir():
            raise InputError(f"{target}: -o: is a folder; expected a file")
        if not target.exists():
            return
        if not target.is_file():  # renaming a file onto /dev/null as root makes an end of it for the whole machine
            raise InputError(f"{target}: -o: is a device or a pipe; expected a file")
        with target.open("rb") as file:
            if file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC:
                raise InputError(f"{target}: -o: is a database; expected another file")
    except OSError as error:
        raise InputError(f"{target}: -o: cannot be written: {error.strerror or error}") from None


def _umask() -> int:
    """The process's mask for new files; there is no way to read it without setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def json_text(document: Mapping[str, Any]) -> str:
    """Readable strict JSON."""
    from evo.record.lines import plain

    return json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n"
