"""The JSON API: the facts of the pages."""

from __future__ import annotations

import pytest

from evo.record import Record

testclient = pytest.importorskip("fastapi.testclient", reason="httpx is not installed")


def test_the_api_serves_the_facts_of_the_pages(client: testclient.TestClient, reader: Record) -> None:
    campaigns = client.get("/api/campaigns").json()
    assert [item["id"] for item in campaigns] == [3, 2, 1]
    best = reader.campaign(1)
    assert campaigns[2]["best_us"] == best.best_us
    assert campaigns[2]["best_ratio_low"] < campaigns[2]["best_ratio"] < campaigns[2]["best_ratio_high"]
    assert campaigns[1]["replay"].startswith("Recorded times")
    one = client.get("/api/campaigns/1").json()
    assert one["fastest"][0]["time_us"] == best.best_us
    assert sum(row["count"] for row in one["failures"]) == best.evaluated - best.valid
    points = client.get("/api/campaigns/1/points").json()
    assert len(points["position"]) == len(points["rows"]) == 80
    tile_q = next(index for index, knob in enumerate(points["knobs"]) if knob["name"] == "tile_q")
    first = reader.trials(1)[0].configuration["tile_q"]
    assert points["knobs"][tile_q]["values"][points["rows"][0][tile_q]] == str(first)
    assert set(points["progress"]["baselines"]) == {"flash", "cudnn", "efficient", "math"}
    later = client.get("/api/campaigns/1/points", params={"after": points["id"][69]}).json()
    assert later["position"] == list(range(71, 81))
    assert len(client.get("/api/campaigns/1/trials", params={"after": 69}).json()) == 10
    elites = client.get("/api/elites", params={"base": "phase4"}).json()
    assert [elite["rank"] for elite in elites] == [1, 2, 3]
    variant = client.get(f"/api/variants/{elites[0]['variant_key']}").json()
    assert variant["sources"][""].startswith("// Stand-in")
    assert len(client.get("/api/compare", params={"id": [1, 2]}).json()["curves"]) == 2
    csv_lines = client.get("/api/campaigns/1/trials.csv").text.splitlines()
    assert len(csv_lines) == 81


def test_a_campaigns_promotions_and_events_are_facts_too(client: testclient.TestClient) -> None:
    facts = client.get("/api/campaigns/1").json()
    assert facts["promotions"][0]["promotion"]["place"]["base"] == "phase4"
    assert facts["per_s"] > 0
    assert isinstance(facts["events"], list)


def test_the_openapi_document_describes_every_address(client: testclient.TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    assert "/api/campaigns/{campaign_id}/points" in document["paths"]
    for path, methods in document["paths"].items():
        assert list(methods) == ["get"], f"{path} can change something"
        assert methods["get"]["summary"]
        assert methods["get"]["description"]
    assert client.get("/api").url.path == "/api/docs"
    page = client.get("/api/docs").text
    assert all(path in page for path in document["paths"])
    assert "http" not in page.replace("http-equiv", ""), "the page may not load anything from elsewhere"


@pytest.mark.parametrize("path", ["/api/campaigns/99", "/api/variants/nope", "/api/trials/99999", "/api/nothing"])
def test_unknown_facts_are_404_in_json(client: testclient.TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_bad_parameters_are_refused_in_one_line(client: testclient.TestClient) -> None:
    answer = client.get("/api/campaigns", params={"limit": 100000})
    assert answer.status_code == 400
    assert "limit" in answer.json()["error"]
