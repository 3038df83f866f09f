"""Recordings: four formats, one value; ours written and read back; broken files told in one line."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from evo.errors import InputError
from evo.outcome import Measured, Outcome, Rejected, Stage
from evo.space import Knob
from evo.targets.recorded import load_recording, save_recording

FOLDER = Path(os.environ.get("EVO_RECORDED_SPACES", Path(__file__).parents[2].parent / "shared" / "recorded_spaces"))
KNOBS = [Knob("tile", (16, 32), default=32), Knob("swizzle", ("none", "xor"))]
TRIALS: list[tuple[tuple[int, int], Outcome]] = [
    ((0, 0), Measured((10.0, 11.0, 12.0), (20.0, 21.0, 22.0))),
    ((1, 0), Rejected(Stage.BUILD, "spills", "ptxas: 12 bytes")),
    ((1, 1), Measured((7.0, 7.5, 8.0))),
    ((1, 1), Measured((6.0, 6.5, 7.0))),
]


def save(path: Path) -> Path:
    save_recording(
        path,
        base="phase9",
        workload="attention",
        case={"batch": 1},
        device={"name": "H200", "arch": "sm_90"},
        date="2026-01-02",
        commit="abc",
        knobs=KNOBS,
        trials=TRIALS,
        constants={"head_dim": 64},
        anchor="flash",
    )
    return path


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    recording = load_recording(save(tmp_path / "h200" / "phase9.json.gz"))
    assert recording.name == "phase9"
    assert recording.device["name"] == "H200"
    assert recording.date == "2026-01-02"
    assert recording.space.size == 3
    assert recording.space.default["tile"] == 32
    assert recording.space.has_default
    assert recording.outcome({"tile": 16, "swizzle": "none"}) == TRIALS[0][1]
    assert recording.outcome({"tile": 32, "swizzle": "none"}) == TRIALS[1][1]
    assert recording.optimum_us == 6.5
    assert recording.constants == {"head_dim": 64}
    assert recording.anchor == "flash"
    assert recording.case == {"batch": 1}
    with pytest.raises(KeyError):
        recording.outcome({"tile": 16, "swizzle": "xor"})


def test_the_same_campaign_gives_the_same_bytes(tmp_path: Path) -> None:
    assert save(tmp_path / "a.json.gz").read_bytes() == save(tmp_path / "b.json.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json.gz", "b.json.gz"]


def cachefile(**changes: object) -> dict[str, object]:
    def entry(tile: int, time: object) -> dict[str, object]:
        return {"tile": tile, "mode": "a", "time": time, "times": [1.0, 2.0, 3.0], "timestamp": "2024-05-06 07:08"}

    return {
        "device_name": "A100",
        "kernel_name": "conv",
        "tune_params_keys": ["tile", "mode"],
        "tune_params": {"tile": [16, 32, 64], "mode": ["a"]},
        "objective": "time",
        "cache": {"16,a": entry(16, 2.0), "32,a": entry(32, "RuntimeFailedConfig"), "64,a": entry(64, 1e20)},
        **changes,
    }


def test_a_kernel_tuner_cache_file(tmp_path: Path) -> None:
    path = tmp_path / "conv_A100.json"
    path.write_text(json.dumps(cachefile()))
    recording = load_recording(path)
    assert recording.space.size == 3
    assert recording.device["name"] == "A100"
    assert recording.date == "2024-05-06"
    assert recording.outcome({"tile": 16, "mode": "a"}) == Measured((1000.0, 2000.0, 3000.0))
    assert recording.outcome({"tile": 32, "mode": "a"}) == Rejected(Stage.LAUNCH, "runtime_failed")
    assert recording.outcome({"tile": 64, "mode": "a"}) == Rejected(Stage.MEASURE, "no_time")


def test_a_cache_file_that_was_left_open(tmp_path: Path) -> None:
    path = tmp_path / "open.json"
    path.write_text(json.dumps(cachefile())[:-2] + ",\n")
    assert load_recording(path).space.size == 3


def test_a_t4_file(tmp_path: Path) -> None:
    def result(tile: int, invalidity: str, value: object) -> dict[str, object]:
        return {
            "configuration": {"tile": tile, "mode": "a"},
            "times": {"runtimes": [1.0, 3.0]} if invalidity == "correct" else {},
            "invalidity": invalidity,
            "measurements": [{"name": "time", "value": value}],
            "objectives": ["time"],
        }

    path = tmp_path / "conv.t4.json.gz"
    results = [result(64, "correct", 2.0), result(16, "compile", "x"), result(32, "correctness", 2.0)]
    path.write_bytes(gzip.compress(json.dumps({"metadata": {"timeunit": "miliseconds"}, "results": results}).encode()))
    recording = load_recording(path)
    assert recording.space.knobs[0].values == (16, 32, 64)
    assert recording.outcome({"tile": 64, "mode": "a"}) == Measured((1000.0, 3000.0))
    assert recording.outcome({"tile": 16, "mode": "a"}) == Rejected(Stage.BUILD, "compilation_failed")
    assert recording.outcome({"tile": 32, "mode": "a"}) == Rejected(Stage.VERIFY, "wrong_output")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "JSON"),
        (b"\x1f\x8bxx", "damaged"),
        (b"[1]", "JSON object"),
        (b'{"a":' * 50_000, "nested beyond reason"),
        (b'{"a": 1}', "format: expected"),
        (b'{"format": "evo_recording", "version": 1, "knobs": []}', "not a complete recording"),
        (b'{"results": []}', "results: expected at least one"),
        (json.dumps(cachefile(tune_params={"tile": [16], "mode": ["a"]})).encode(), "not a complete recording"),
        (
            b'{"format":"evo_recording","version":1,"knobs":[{"name":"a","values":[1]}],"trials":[{"indices":[0],"samples_us":[-1]}]}',
            "positive",
        ),
    ],
)
def test_broken_files_are_told_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        load_recording(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"date": None}, "date: expected a text, not None"),
        ({"version": 2}, "version: expected 1, not 2"),
        ({"trials": []}, "trials: expected a list with at least one trial"),
        ({"knobs": 3}, "knobs: expected a list of knobs"),
        ({"commit": 5}, "commit: expected a text, not 5"),
        ({"device": "H200"}, "device: expected its name and facts"),
        ({"device": {"name": "H200", "limits": None}}, "device.limits: expected numbers and words by name"),
        ({"constants": {"head_dim": None}}, "constants: expected numbers and words by name"),
        ({"trials": [{"indices": [0, 0], "samples_us": [1.0], "anchor_us": ["x"]}]}, "anchor_us: expected positive"),
        ({"knobs": [{"name": "a", "values": [1, 1e400]}]}, "knobs.a: expected finite numbers"),
    ],
)
def test_what_is_of_another_kind_than_it_is_used_as_is_told(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    document = json.loads(gzip.decompress(save(tmp_path / "good.json.gz").read_bytes()))
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(document | changes))
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        load_recording(path)
    assert said in str(caught.value)


def test_missing_and_unwritable_paths_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="readable"):
        load_recording(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable"):
        save(tmp_path / "file" / "x.json.gz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="writable"):
        save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"], "nothing is left half written"


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recorded spaces at {FOLDER} (set EVO_RECORDED_SPACES)")
def test_the_published_formats_hold_the_same_space() -> None:
    ours = load_recording(FOLDER / "convolution_A100.space.json.gz")
    assert ours.space.size == 4362
    assert int(np.isnan(ours.times_us).sum()) == 161
    assert ours.optimum_us == pytest.approx(554, rel=0.01)
    cache = load_recording(FOLDER / "raw" / "convolution_A100.cachefile.json.gz")
    t4 = load_recording(FOLDER / "raw" / "convolution_A100.t4.json.gz")
    for row in range(0, 4362, 97):
        here = dict(ours.space.at(ours.space.rows[row]))
        assert cache.outcome(here) == t4.outcome(here)
        first, second = ours.outcome(here), cache.outcome(here)
        assert type(first) is type(second)
        if isinstance(first, Measured) and isinstance(second, Measured):
            assert first.time_us == pytest.approx(float(np.mean(second.samples_us)), rel=0.02)
