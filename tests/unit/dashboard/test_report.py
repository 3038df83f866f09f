"""Reports: one file to pass on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evo.dashboard import write_report
from evo.dashboard.report import report_markdown, sparkline
from evo.errors import InputError
from evo.record import Record


def test_the_html_report_is_one_file_that_asks_for_nothing(reader: Record, tmp_path: Path) -> None:
    target = write_report(reader, 1, tmp_path / "report.html")
    text = target.read_text(encoding="utf-8")
    markup = text.split("<script>", 2)[0] + text.split("<main", 1)[1].split("<script", 1)[0]
    assert "src=" not in markup
    assert 'href="/' not in markup
    data = text.split('id="points">', 1)[1].split("</script>", 1)[0]
    assert len(json.loads(data)["position"]) == 80


def test_a_hostile_name_cannot_leave_the_reports_data(reader: Record, tmp_path: Path) -> None:
    text = write_report(reader, 2, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "a|b <script>" not in text


def test_the_markdown_report_fits_a_pull_request(reader: Record, tmp_path: Path) -> None:
    text = write_report(reader, 1, tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("## phase4 on mission: campaign 1")
    assert "| PyTorch flash | 25.00 µs |" in text
    assert "### Knobs" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    hostile = report_markdown(reader, 2)
    assert "a\\|b &lt;script&gt;" in hostile
    assert "> Recorded times of an Example GPU." in hostile
    assert "Nothing was measured" in report_markdown(reader, 3)


def test_reports_refuse_what_cannot_be_written(reader: Record, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no campaign 99"):
        write_report(reader, 99, tmp_path / "report.html")
    with pytest.raises(InputError, match="--format pdf: expected html or md"):
        write_report(reader, 1, tmp_path / "report.pdf", format="pdf")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(reader, 1, tmp_path / "nowhere" / "report.html")


def test_a_sparkline_falls_from_high_to_low() -> None:
    line = sparkline([1, 10, 20], [100.0, 50.0, 10.0], 20)
    assert line[0] == "█"
    assert line[-1] == "▁"
    assert sparkline([1], [5.0], 10) == ""
