"""What the commands share: their options, how they print JSON, and how Ctrl-C ends them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from evo.errors import InputError

DONE, NOTHING_VALID, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
FEWEST_ROUNDS = 30  # of a promotion: fewer prove nothing
MOST = 2**31 - 1  # that counts may be; samplers and databases take no more

BaseOption = Annotated[str, typer.Option("--base", "-b", help="A base by name (`evo bases list`) or its YAML file.")]
CaseOption = Annotated[str, typer.Option("--case", "--shape", help="mission, tiny, ... or BxHxSxD, BxHxSq:SkvxD.")]
DtypeOption = Annotated[str, typer.Option(help="float16, bfloat16 or float32; empty: the base's first.")]
CausalOption = Annotated[bool, typer.Option("--causal", help="With the causal mask.")]
DbOption = Annotated[str, typer.Option("--db", help="Results: a SQLite file or any SQLAlchemy URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ArchOption = Annotated[str, typer.Option(help="Build for this architecture, e.g. sm_89; empty: this device's.")]
MarginOption = Annotated[float, typer.Option(help="Percent that a newcomer must be faster than a champion by.")]
ContestTimeoutOption = Annotated[float, typer.Option(help="Seconds for each part of the final comparison.")]
CampaignArgument = Annotated[int, typer.Argument(help="A campaign's number, as `evo runs` shows it.")]
KnobOption = Annotated[list[str] | None, typer.Option("--knob", "-k", help="name=value; the rest keep defaults.")]
ChosenKnobOption = Annotated[
    list[str] | None, typer.Option("--knob", "-k", help="name=value; else champion, else default.")
]


def check_count(option: str, count: int | None, fewest: int = 1) -> None:
    """Raises: InputError."""
    if count is not None and not fewest <= count <= MOST:
        least = f"{fewest} or more" if fewest == 0 else f"at least {fewest}"
        raise InputError(f"{option} {count}: expected {least}{f', at most {MOST}' if count > MOST else ''}")


def check_timeout(option: str, seconds: float | None) -> None:
    """Raises: InputError."""
    if seconds is not None and not 0 < seconds < 86400:
        raise InputError(f"{option} {seconds:g}: expected more than 0 seconds and less than a day")


def parse_margin(percent: float) -> float:
    """As a fraction. Raises: InputError."""
    if not 0 <= percent < 100:
        raise InputError(f"--margin {percent:g}: expected 0 or more percent, less than 100")
    return percent / 100


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, default=str), flush=True)


def answer(document: Any, show: Callable[[Any], None], *, as_json: bool) -> None:
    """Print what a command found: one JSON document, or for people by `show`."""
    if as_json:
        print_json(document)
    else:
        show(document)


def answer_file(path: Any, *, as_json: bool) -> None:
    """Say which file was written."""
    answer({"file": str(path)}, lambda document: print(document["file"]), as_json=as_json)


def _end_cleanly(*_: object) -> NoReturn:
    """Ctrl-C or a request to terminate, once: what is under way is then finished and recorded undisturbed."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)
    raise KeyboardInterrupt


def end_cleanly_on_signals() -> None:
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, _end_cleanly)
