"""Numbers as people read them. Used as template filters."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from evo.dashboard.analysis import value_word
from evo.record import Campaign, is_abandoned

NONE = "–"
_ON_A_CPU = {"": "PyTorch", "torch": "PyTorch", "torch-1": "PyTorch on one thread"}


def micro(value: float | None) -> str:
    """Kernel time: 12.31 µs, 1.25 ms, 2.10 s."""
    if value is None:
        return NONE
    if value < 1:
        return f"{value:.3g} µs"
    if value < 999.95:
        return f"{_digits(value)} µs"
    if value < 999_950:
        return f"{_digits(value / 1e3)} ms"
    return f"{_digits(value / 1e6)} s"


def _digits(value: float) -> str:
    """Four significant digits, no exponent."""
    return f"{value:.{max(0, 4 - len(str(round(value))))}f}"


def ratio(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}×"


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def micro_interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{micro(low)} to {micro(high)}"


def percent(value: float | None) -> str:
    if value is None:
        return NONE
    return "<1 %" if 0 < value < 0.005 else f"{100 * value:.0f} %"


def signed_percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:+.1f} %"


def seconds(value: float | None) -> str:
    """A duration: 20 ms, 8.0 s, 2 min 5 s, 3 h 10 min."""
    if value is None:
        return NONE
    if 0 < value < 0.0995:
        return f"{1e3 * value:.0f} ms"
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def day(at: float | None) -> str:
    """Date and minute in UTC."""
    return NONE if not at else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def iso(at: float | None) -> str:
    return "" if not at else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def knobs(configuration: Mapping[str, Any], but: Collection[str] = ()) -> str:
    """A configuration on one line, without the knobs in `but`."""
    return ", ".join(f"{name}={value_word(value)}" for name, value in configuration.items() if name not in but)


def backend(name: str) -> str:
    """A PyTorch backend: "PyTorch flash"; on a CPU "PyTorch", which takes all threads, or "PyTorch on one thread"."""
    return _ON_A_CPU.get(name, f"PyTorch {name}")


def proof(kill_rate: Mapping[str, Any]) -> str:
    """What became of the wrong kernels that a search first submits to itself."""
    killed, survived = kill_rate.get("killed"), kill_rate.get("survived")
    if not isinstance(killed, Mapping) or not isinstance(survived, Mapping):
        return knobs(kill_rate)
    through = f"; not caught: {', '.join(survived)}" if survived else ""
    return f"{len(killed)} of {len(killed) + len(survived)} wrong kernels caught{through}"


def short(key: str) -> str:
    return key[:10]


def state(campaign: Campaign) -> str:
    """running, done, interrupted, failed, or abandoned where the driver of a running campaign is gone."""
    return "abandoned" if is_abandoned(campaign) else campaign.state


def lasted(campaign: Campaign) -> float:
    """Seconds from start to end, or until now."""
    if campaign.ended_at is not None:
        return max(0.0, campaign.ended_at - campaign.started_at)
    end = campaign.heartbeat_at if is_abandoned(campaign) else time.time()
    return max(0.0, end - campaign.started_at)


FILTERS = {
    "micro": micro,
    "ratio": ratio,
    "interval": interval,
    "micro_interval": micro_interval,
    "percent": percent,
    "signed_percent": signed_percent,
    "seconds": seconds,
    "day": day,
    "iso": iso,
    "count": count,
    "knobs": knobs,
    "proof": proof,
    "short": short,
    "state": state,
    "lasted": lasted,
    "value": value_word,
    "backend": backend,
}
