"""A running search as its terminal shows it: a live view, or a plain line now and then where there is none."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evo.present import console

if TYPE_CHECKING:
    from evo.campaign import Progress

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_EVERY_S = 5.0


class Watcher:
    """Shows a running search: a live view on a terminal, a plain line now and then elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool, live: Live | None) -> None:
        self._quiet, self._live, self._printed_at = quiet, live, time.monotonic()
        self._last: Progress | None = None

    def say(self, line: str) -> None:
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(Text(line))
        else:
            print(line, flush=True)

    def warn(self, line: str) -> None:
        """What must be heard also where everything else is for a program to read."""
        if self._quiet:
            print(f"evo: {line}", file=sys.stderr)
        else:
            self.say(line)

    def watch(self, progress: Progress) -> None:
        self._last = progress
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(_view(progress))
        elif time.monotonic() - self._printed_at >= _PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            print(_line(progress), flush=True)

    def close(self) -> None:
        if not self._quiet and self._live is None and self._last is not None:
            print(_line(self._last), flush=True)


@contextlib.contextmanager
def watching(*, quiet: bool = False) -> Iterator[Watcher]:
    """A watcher for one search."""
    if quiet or not sys.stdout.isatty():
        plain = Watcher(quiet=quiet, live=None)
        yield plain
        plain.close()
        return
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        yield Watcher(quiet=False, live=live)


def _line(progress: Progress) -> str:
    of = f"/{progress.budget}" if progress.budget else ""
    best = "none yet"
    if progress.best_us is not None:
        best = f"{progress.best_us:.2f} us"
        if progress.best_ratio is not None:
            best += f" ({progress.best_ratio:.2f} x {progress.anchor})"
    left = f", {_duration(progress.left_s)} left" if progress.left_s is not None else ""
    return (
        f"{progress.evaluated}{of} evaluated, {_share(progress):.0f} % valid, best {best}, {progress.per_s:.1f}/s{left}"
    )


def _share(progress: Progress) -> float:
    """Percent of those evaluated that are valid."""
    return 100 * progress.valid / progress.evaluated if progress.evaluated else 0.0


def _view(progress: Progress) -> Group:
    total = progress.budget or max(progress.evaluated, 1)
    table = Table.grid(padding=(0, 2))
    table.add_row(
        ProgressBar(total=total, completed=progress.evaluated, width=40),
        Text(f"{progress.evaluated}/{total}"),
        Text(f"{progress.per_s:.1f}/s"),
        Text(f"{_duration(progress.left_s)} left" if progress.left_s is not None else ""),
    )
    lines: list[Any] = [table]
    if progress.best_us is not None:
        best = Text.assemble("best ", (f"{progress.best_us:.2f} us", "bold green"))
        if progress.best_ratio is not None:
            best.append(f"   {progress.best_ratio:.2f} x {progress.anchor}", style="bold")
        best.append(f"   {_sparkline(progress)}", style="cyan")
        lines.append(best)
    counts = [f"{progress.valid} valid ({_share(progress):.0f} %)"] + [
        f"{count} {reason}" for reason, count in progress.rejected.most_common(3)
    ]
    lines.append(Text(f"{', '.join(counts)}   building {progress.building}, running {progress.running}", style="dim"))
    return Group(*lines)


def _sparkline(progress: Progress, width: int = 32) -> str:
    """Best so far over the evaluations, the fastest lowest."""
    curve = progress.curve
    if len(curve) < 2:
        return ""
    values = []
    for step in range(width):
        at = 1 + (progress.evaluated - 1) * step / (width - 1)
        values.append(next((us for number, us in reversed(curve) if number <= at), curve[0][1]))
    low, high = min(values), max(values)
    return "".join(_BARS[int((v - low) / (high - low or 1) * (len(_BARS) - 1))] for v in values)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return (
        f"{minutes // 60}h {minutes % 60:02d}m"
        if minutes >= 60
        else f"{minutes}m {rest:02d}s"
        if minutes
        else f"{rest}s"
    )
