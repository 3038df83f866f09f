"""How the command line shows its help, and what it says to words that it does not understand: one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, cast

import typer
from typer.core import TyperGroup

# Typer brings click along or within itself, by its version; the error below which all others stand is in either.
UsageError = cast(type[Exception], next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError"))


class Group(TyperGroup):
    """Commands listed with the whole first sentence of their help. Plain text: it is there at once and fits a pipe."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, (command.help or "").split("\n\n")[0]) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join(words.split())) for name, words in rows])


def usage_words(error: Any) -> str:
    """One line for a usage error: what is wrong, and where to read what was expected."""
    words = " ".join(error.format_message().split()).rstrip(".").replace(". D", "; d")
    parameter, missing = getattr(error, "param", None), type(error).__name__ == "MissingParameter"
    if parameter is not None and not missing:
        name, value = _refused(parameter, sys.argv[1:])
        return f"{name}{f' {value}' if value else ''}: expected {_expected(words)}"
    words = words[:1].lower() + words[1:]
    if error.ctx is None:
        return words
    return f"{words}{'' if words.endswith('?') else ';'} `{error.ctx.command_path} --help` shows what there is"


def _refused(parameter: Any, given: Sequence[str]) -> tuple[str, str]:
    """The option as it was written with its value; of an argument, its name."""
    for index, word in enumerate(given):
        for option in parameter.opts:
            if word == option and option.startswith("-"):
                return option, given[index + 1] if index + 1 < len(given) else ""
            if word.startswith(f"{option}="):
                return option, word.partition("=")[2]
    name = parameter.opts[0]
    return (name, "") if name.startswith("-") else (name.upper(), "")


def _expected(words: str) -> str:
    """What kind of value would have been right, from the parser's words."""
    if "integer" in words:
        return "a whole number"
    if "number" in words or "float" in words:
        return "a number"
    return words.partition("': ")[2] or words
