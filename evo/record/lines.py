"""Values as plain JSON lines: what is written to the tables, or to the spool when they cannot be written."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import socket
import statistics
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from evo.outcome import Measured, Rejected
from evo.record.values import CampaignSpec, Event, Interval, Place, Promotion, Trial, VariantRecord

Line = dict[str, Any]  # {"id", "kind", "campaign", ...}: one transaction's worth for its kind
DETAIL_LIMIT = 64_000  # characters of a compiler's words kept: enough to act on, no gigabyte of templates


def plain(value: Any) -> Any:
    """The value as strict JSON: tuples as lists, NaN and infinities as words, text without NUL or lone surrogates."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # a numpy scalar
        return plain(value.item())
    return str(value)


def line(kind: str, campaign_id: int, body: Mapping[str, Any]) -> Line:
    return {"id": uuid.uuid4().hex, "kind": kind, "campaign": campaign_id, **body}


def campaign_columns(spec: CampaignSpec) -> dict[str, Any]:
    """Columns of a campaign that starts now, without its environment."""
    now = time.time()
    fields = {f.name: plain(getattr(spec, f.name)) for f in dataclasses.fields(spec) if f.name != "environment"}
    started = {"started_at": now, "heartbeat_at": now, "state": "running", "end_reason": ""}
    return fields | started | {"pid": os.getpid(), "host": socket.gethostname()}


def trial_line(campaign_id: int, trial: Trial) -> Line:
    """One trial with its variant and samples."""
    outcome = trial.outcome
    columns: dict[str, Any] = {
        "number": trial.number,
        "variant_key": trial.variant.key,
        "operator": trial.origin.operator,
        "parents": trial.origin.parents,
        "note": trial.origin.note,
        "stage": None,
        "reason": "",
        "detail": "",
        "time_us": None,
        "anchor_us": None,
        "ratio": None,
        "errors": [],
        "started_at": trial.started_at,
        "recorded_at": trial.recorded_at or time.time(),
        "build_s": trial.build_s or 0.0,
        "verify_s": trial.verify_s or 0.0,
        "measure_s": trial.measure_s or 0.0,
        "worker": trial.worker,
        "same_as": trial.same_as,
        "environment": trial.environment,
    }
    samples: list[dict[str, Any]] = []
    if isinstance(outcome, Rejected):
        columns |= {"stage": str(outcome.stage), "reason": outcome.reason, "detail": shorten(outcome.detail)}
    else:
        columns |= _measured_columns(trial, outcome)
        named = (
            ("variant", "warm", outcome.samples_us),
            ("anchor", "warm", outcome.anchor_us),
            ("variant", "cold", trial.cold_us),
            ("anchor", "cold", trial.anchor_cold_us),
        )
        samples = [{"name": name, "l2": l2, "values_us": values} for name, l2, values in named if values]
    body = {"variant": variant_columns(trial.variant), "trial": columns, "samples": samples}
    return line("trial", campaign_id, plain(body))


def _measured_columns(trial: Trial, outcome: Measured) -> dict[str, Any]:
    build_s = outcome.built.build_s if outcome.built is not None else 0.0
    anchor_us = statistics.median(outcome.anchor_us) if outcome.anchor_us else None
    anchor = {"anchor": outcome.anchor} if outcome.anchor else {}
    return {
        "time_us": outcome.time_us,
        "anchor_us": anchor_us,
        "ratio": outcome.ratio,
        "errors": [dataclasses.asdict(error) for error in outcome.errors],
        "build_s": build_s if trial.build_s is None else trial.build_s,
        "verify_s": outcome.verify_s if trial.verify_s is None else trial.verify_s,
        "measure_s": outcome.measure_s if trial.measure_s is None else trial.measure_s,
        "environment": {**outcome.environment, **anchor, **trial.environment},
    }


def variant_columns(variant: VariantRecord) -> dict[str, Any]:
    """Columns of a variant; its sources stay whole under "texts" by their hash."""
    hashes = {name: hash_text(text) for name, text in variant.sources.items()}
    columns = {field.name: getattr(variant, field.name) for field in dataclasses.fields(variant)}
    columns["sources"] = hashes
    columns["texts"] = {hashes[name]: text for name, text in variant.sources.items()}
    columns["resources"] = dataclasses.asdict(variant.resources) if variant.resources is not None else None
    columns["log"] = shorten(variant.log)
    return columns


def shorten(text: str) -> str:
    """The text, or its start and a note of what was left out."""
    if len(text) <= DETAIL_LIMIT:
        return text
    return f"{text[:DETAIL_LIMIT]}\n[{len(text) - DETAIL_LIMIT} more characters not kept]"


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def promotion_line(campaign_id: int, promotion: Promotion) -> Line:
    """A promotion with its samples; its variant must have been recorded."""
    columns = dataclasses.asdict(promotion) | dataclasses.asdict(promotion.place)
    samples = columns.pop("samples")
    columns.pop("place")
    columns["at"] = promotion.at or time.time()
    return line("promotion", campaign_id, plain({"promotion": columns, "samples": samples}))


def crown_line(campaign_id: int, place: Place, variant_keys: Iterable[str], at: float) -> Line:
    body = {"place": dataclasses.asdict(place), "variant_keys": list(variant_keys), "at": at or time.time()}
    return line("crown", campaign_id, plain(body))


def event_line(campaign_id: int, event: Event) -> Line:
    return line("event", campaign_id, plain({"event": dataclasses.asdict(event) | {"at": event.at or time.time()}}))


def intervals_line(campaign_id: int, intervals: Iterable[Interval]) -> Line:
    return line("intervals", campaign_id, plain({"intervals": [dataclasses.asdict(item) for item in intervals]}))


def update_line(campaign_id: int, columns: Mapping[str, Any]) -> Line:
    return line("update", campaign_id, plain({"columns": columns}))
