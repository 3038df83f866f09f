"""What a running search shows, and what it says although it was asked for silence."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from evo import watch
from evo.campaign import Progress


def test_a_warning_is_heard_beside_json(capsys: pytest.CaptureFixture[str]) -> None:
    with watch.watching(quiet=True) as watcher:
        watcher.say("a step")
        watcher.warn("this code is not ours")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "evo: this code is not ours\n"


def test_terminal_and_plain_line_show_the_share_that_is_valid() -> None:
    progress = Progress(40, evaluated=8, valid=6, best_us=4.0, best_ratio=2.0, anchor="cudnn")
    assert watch._line(progress).startswith("8/40 evaluated, 75 % valid, best 4.00 us (2.00 x cudnn)")
    screen = io.StringIO()
    Console(file=screen, width=120).print(watch._view(progress))
    assert "8/40" in screen.getvalue()
    assert "6 valid (75 %)" in screen.getvalue()
    assert "best 4.00 us" in screen.getvalue()
