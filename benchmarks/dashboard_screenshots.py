"""Takes a picture of every page of the dashboard over a database, for docs/ and the README.

python benchmarks/dashboard_screenshots.py results.db --output docs/images

Needs Debian's chromium and playwright (pip install -e ".[test]").
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.dashboard_speed import FLAGS, serving
from evo.record import open_record

HIGHEST = 2400  # pixels; longer pages are cut


def addresses(database: Path, campaign_id: int | None) -> dict[str, str]:
    """Page by the name of its picture: the campaign asked for, or the largest."""
    with open_record(database, read_only=True) as record:
        campaigns = record.campaigns()
        elites = record.elites()
    chosen = campaign_id or max(campaigns, key=lambda campaign: campaign.evaluated).id
    pages = {"campaigns": "/", "campaign": f"/campaigns/{chosen}", "elites": "/elites", "api": "/api/docs"}
    if elites:
        pages["variant"] = f"/variants/{elites[0].variant_key}"
    if len(campaigns) > 1:
        others = [campaign for campaign in campaigns if campaign.id != chosen]
        other = max(others, key=lambda campaign: campaign.evaluated).id
        pages["compare"] = f"/compare?a={chosen}&b={other}"
    return pages


def take(browser: Any, address: str, pages: dict[str, str], folder: Path) -> None:
    """Light at full width for every page; the campaign also dark and at a phone's width, where it is among them."""
    from playwright.sync_api import expect

    looks = [(name, path, 1280, "light", name) for name, path in pages.items()]
    if "campaign" in pages:
        looks += [("campaign", pages["campaign"], 1280, "dark", "campaign-dark")]
        looks += [("campaign", pages["campaign"], 390, "light", "campaign-phone")]
    for _, path, width, scheme, picture in looks:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        expect(page.locator(".chart.waiting")).to_have_count(0, timeout=120_000)
        page.wait_for_timeout(300)
        height = min(
            int(page.evaluate("document.querySelector('footer').getBoundingClientRect().top + scrollY")), HIGHEST
        )
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)
        page.screenshot(path=folder / f"{picture}.png")
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--campaign", type=int)
    parser.add_argument("--only", nargs="+", help="names of pictures, e.g. campaigns compare; otherwise all")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    arguments.output.mkdir(parents=True, exist_ok=True)
    with serving(arguments.database) as (address, _), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        pages = addresses(arguments.database, arguments.campaign)
        wanted = {name: path for name, path in pages.items() if not arguments.only or name in arguments.only}
        take(browser, address, wanted, arguments.output)
        browser.close()


if __name__ == "__main__":
    main()
