"""Every page in a real browser: nothing fails, nothing leaves the machine, everyone can use it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from evo.dashboard import write_report
from evo.record import open_record
from tests.browser.conftest import HOSTILE, Visitor, serving
from tests.synthetic import fill_campaign, make_spec

Visit = Callable[..., Visitor]
PAGES = ("/", "/campaigns/1", "/elites", "/trials/5", "/compare?a=1&b=2", "/api/docs")


def all_pages(visitor: Visitor, site: str) -> list[str]:
    visitor.open(f"{site}/elites")
    return [*PAGES, visitor.page.locator("td a.mono").first.get_attribute("href")]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)], ids=["wide", "dark", "phone"])
def test_every_page_opens_without_a_fault(visit: Visit, site: str, width: int, dark: bool) -> None:
    visitor = visit(width=width, dark=dark)
    for path in [*all_pages(visitor, site), "/campaigns/3", "/compare"]:
        assert visitor.open(site + path).status == 200
        overflow = visitor.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{path} is {overflow} px too wide"
        assert visitor.page.title().endswith("Evo")
    assert visitor.problems == []
    assert all(url.startswith(site) for url in visitor.requests), "a page asked another host"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_serious_accessibility_fault(visit: Visit, site: str, dark: bool) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    visitor = visit(dark=dark)
    paths = ["/", "/campaigns/1"] if dark else [*all_pages(visitor, site), "/campaigns/999"]
    for path in paths:
        visitor.open(site + path)
        found = axe.Axe().run(visitor.page).response["violations"]
        serious = [item for item in found if item["impact"] in ("serious", "critical")]
        told = [(item["id"], [node["html"][:120] for node in item["nodes"][:3]]) for item in serious]
        assert not serious, f"{path}: {told}"


def test_every_chart_has_axis_titles_with_units(visit: Visit, site: str) -> None:
    visitor = visit()
    visitor.open(f"{site}/campaigns/1")
    charts = visitor.page.locator(".js-plotly-plot")
    assert charts.count() >= 12
    for index in range(charts.count()):
        chart = charts.nth(index)
        titles = chart.locator(".xtitle, .ytitle").all_text_contents()
        assert len(titles) == 2, f"chart {index}: {titles}"
        assert sum("(" in title for title in titles) >= 1, f"chart {index} has no unit: {titles}"
    progress = visitor.page.locator("#progress")
    assert "Time of one launch (µs, log scale)" in progress.inner_text()
    assert "PyTorch flash 25.00 µs" in progress.inner_text()
    assert "random search, expected" in progress.inner_text()
    visitor.page.get_by_role("button", name="Seconds").click()
    assert "Time since the start (s)" in progress.inner_text()


@pytest.mark.parametrize("path", ["/campaigns/1", "/elites", "/compare?a=1&b=2"])
def test_the_first_paint_waits_for_no_chart(visit: Visit, site: str, path: str) -> None:
    visitor = visit()
    visitor.open(site + path)
    painted, asked = visitor.page.evaluate(
        "[performance.getEntriesByName('first-contentful-paint')[0].startTime, "
        "performance.getEntriesByType('resource').find((r) => r.name.includes('plotly')).startTime]"
    )
    assert asked >= painted - 8, "frames are counted in steps of a few milliseconds"


def test_the_compilers_words_are_one_click_away(visit: Visit, site: str) -> None:
    visitor = visit()
    visitor.open(f"{site}/campaigns/1")
    words = visitor.page.get_by_text("static assertion failed with").first
    assert not words.is_visible()
    visitor.page.get_by_text("build: static_assert: fits_shared").click()
    assert words.is_visible()


def test_the_keyboard_reaches_the_content_and_brushes(visit: Visit, site: str) -> None:
    visitor = visit()
    visitor.open(f"{site}/campaigns/1")
    page = visitor.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    status = page.locator("#parallel-status")
    before = status.inner_text()
    page.get_by_role("button", name="swizzle xor").focus()
    page.keyboard.press("Enter")
    after = status.inner_text()
    assert before != after
    assert 0 < int(after.split()[0]) < int(before.split()[0])
    page.get_by_role("button", name="Clear brushes").press("Enter")
    assert status.inner_text() == before
    page.locator("#heat-x").select_option(label="stages")
    assert "stages (value)" in page.locator("#heat").inner_text()


def test_the_theme_is_switched_and_kept(visit: Visit, site: str) -> None:
    visitor = visit()
    visitor.open(f"{site}/campaigns/1")
    page = visitor.page
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    visitor.open(f"{site}/elites")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    assert visitor.problems == []


def test_hostile_names_stay_text(visit: Visit, site: str) -> None:
    visitor = visit()
    for path, where in (("/", "main"), ("/campaigns/4", "main"), ("/compare?a=4&b=1", "option[value='4']")):
        visitor.open(site + path)
        assert HOSTILE in visitor.page.locator(where).first.inner_text()
    visitor.open(f"{site}/campaigns/4")
    assert visitor.page.locator("h1").inner_text().startswith(HOSTILE)
    assert visitor.page.locator("main img").count() == 0
    assert visitor.problems == []


def test_an_unknown_page_leads_back(visit: Visit, site: str) -> None:
    visitor = visit()
    for path in (
        "/campaigns/999",
        "/campaigns/none",
        "/variants/nope",
        "/trials/99999",
        "/nowhere",
        "/compare?a=x&b=1",
    ):
        assert visitor.page.goto(site + path).status == 404, path
        visitor.page.get_by_role("link", name="Back to the campaigns").click()
        assert visitor.page.url == f"{site}/"


def test_a_running_campaign_is_followed_to_its_end(visit: Visit, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    database = tmp_path / "results.db"
    with open_record(database) as record:
        campaign_id = record.start_campaign(make_spec(budget=120))
        source = open_record(tmp_path / "source.db")
        trials = fill_campaign(source, source.start_campaign(make_spec(budget=120)), 120)
        source.close()
        record.record_trials(campaign_id, trials[:30])

        with serving(database) as address:
            visitor = visit()
            visitor.open(f"{address}/campaigns/{campaign_id}")
            tile = visitor.page.locator(".tile", has_text="Evaluated").locator(".figure")
            expect(tile).to_have_text("30")
            for count in (60, 90, 120):
                record.record_trials(campaign_id, trials[count - 30 : count])
                record.heartbeat(campaign_id)
                expect(tile).to_have_text(str(count), timeout=10_000)
            record.finish_campaign(campaign_id, "done", "budget spent")
            expect(visitor.page.locator("#part-summary .badge")).to_have_text("done", timeout=5000)
            marks = visitor.page.evaluate("document.getElementById('progress').data.map(t => (t.y || []).length)")
            measured = sum(not hasattr(trial.outcome, "stage") for trial in trials)
            assert marks[0] == measured
            expect(visitor.page.locator("#part-failures")).to_contain_text("build")
            assert visitor.problems == []


def test_the_list_follows_a_running_campaign(visit: Visit, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    database = tmp_path / "results.db"
    with open_record(database) as record, serving(database) as address:
        campaign_id = record.start_campaign(make_spec(budget=40))
        visitor = visit()
        visitor.open(address)
        expect(visitor.page.locator("#campaign-rows")).to_contain_text("running")
        fill_campaign(record, campaign_id, 40)
        record.finish_campaign(campaign_id, "done", "budget spent")
        expect(visitor.page.locator("#campaign-rows")).to_contain_text("done", timeout=5000)
        assert visitor.problems == []


def test_empty_states_say_what_to_run(visit: Visit, tmp_path: Path) -> None:
    database = tmp_path / "results.db"
    with serving(database) as address:
        visitor = visit()
        assert visitor.page.goto(address).status == 503
        assert "evo search --base cpu_attention" in visitor.page.locator("main").inner_text()
        with open_record(database) as record:
            for path in ("/", "/elites", "/compare"):
                assert visitor.open(address + path).status == 200
                assert "evo search --base cpu_attention" in visitor.page.locator("main").inner_text()
            campaign_id = record.start_campaign(make_spec())
            visitor.problems.clear()
            visitor.open(f"{address}/campaigns/{campaign_id}")
            assert "No trial yet" in visitor.page.locator("main").inner_text()
        assert visitor.problems == []


def test_the_report_opens_from_a_file_without_a_network(visit: Visit, synthetic_database: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    with open_record(synthetic_database, read_only=True) as record:
        write_report(record, 1, target)
    visitor = visit()
    visitor.page.context.set_offline(True)
    visitor.open(target.as_uri())
    assert visitor.page.locator(".js-plotly-plot").count() >= 12
    assert visitor.problems == []
    assert [url for url in visitor.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert visitor.page.locator("a[href^='/']").count() == 0, "a link that leads nowhere from a file"


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ installed")
def test_a_downloaded_header_compiles(visit: Visit, site: str, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(f"{site}/elites")
    with visitor.page.expect_download() as download:
        visitor.page.get_by_role("link", name="Header of rank 1").first.click()
    header = tmp_path / download.value.suggested_filename
    download.value.save_as(header)
    assert "Example GPU" in header.read_text()
    (tmp_path / "use.cpp").write_text(f'#include "{header.name}"\nint tile = evo::Config::kTileQ;\n')
    command = ["g++", "-std=c++20", "-fsyntax-only", str(tmp_path / "use.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_token_lets_in_and_nothing_else(visit: Visit, synthetic_database: Path) -> None:
    with serving(synthetic_database, token="long-enough-token") as address:
        visitor = visit()
        assert visitor.page.goto(address).status == 401
        assert visitor.page.goto(f"{address}/?token=wrong-token").status == 401
        assert visitor.page.goto(f"{address}/?token=long-enough-token").status == 200
        assert visitor.page.goto(f"{address}/campaigns/1").status == 200, "the cookie keeps the door open"
