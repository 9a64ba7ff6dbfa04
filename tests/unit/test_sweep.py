"""`dlavm sweep`: its grid, the file of results, workers, pictures."""

from __future__ import annotations

import csv
import json
import os
import socket
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlavm.cli import main
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.sweep import workers
from dlavm.sweep.grid import AXES, COLUMNS, KEYS, Point, Results, build_of, grid, row_of, varying
from dlavm.sweep.plot import draw, plots, round_ticks, series, x_axis
from dlavm.sweep.point import measured
from dlavm.sweep.workers import on_processes, on_ray
from dlavm.target import load_target
from dlavm.target.spec import with_buffers

STORIES = str(data_root() / "models" / "stories.py")
SMALL = Point(STORIES, "none", "v3", "nano", None, None, "auto", "fp16", 64, 8, 0, 0)
FIXED = {"model": "m", "weights": "none", "target": "v3", "ctx": None, "prompt": 0}
ONE = {"board": ["nano"], "activation_elements": [None], "accumulators": [None], "quant": ["auto"], "kv": ["fp16"],
       "chunk": [None], "depth": [0]}  # fmt: skip


def test_a_grid_has_every_combination_once() -> None:
    axes = {**ONE, "board": ["nano", "kv260"], "accumulators": [64, None], "depth": [0, 1, 2]}
    points = grid(FIXED, axes)
    assert len(points) == len(set(points)) == 12
    assert [(p.board, p.accumulators, p.depth) for p in points[:4]] == [
        ("nano", 64, 0), ("nano", 64, 1), ("nano", 64, 2), ("nano", None, 0)]  # fmt: skip
    assert points[0].model == "m" and points[0].cells()["accumulators"] == "64"
    assert points[3].cells()["accumulators"] == ""


def test_results_are_kept_and_errors_tried_again(tmp_path: Path) -> None:
    first, second, third = grid(FIXED, {**ONE, "depth": [0, 1, 2]})
    path = tmp_path / "deep" / "results.csv"
    results = Results(path)
    results.add(row_of(first, {"tg_cycles": 5, "tg_tok_s": 1 / 3}))
    results.add(row_of(second, {"error": "it\nfell, 'over'"}))
    with path.open("a") as file:
        file.write("m,none,v3")  # stopped inside a row
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert rows[0]["tg_tok_s"] == "0.333333" and rows[1]["error"] == "it fell, 'over'"
    again = Results(path)
    assert [again.has(p) for p in (first, second, third)] == [True, False, False]
    again.add(row_of(second, {"tg_cycles": 7}))
    assert [row["tg_cycles"] for row in again.of([second, first, third])] == ["7", "5"]
    assert [row["tg_cycles"] for row in csv.DictReader(path.read_text().splitlines())] == ["5", "7"]


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=20))
def test_any_error_is_one_line(tmp_path_factory: pytest.TempPathFactory, error: str) -> None:
    path = tmp_path_factory.mktemp("sweep") / "r.csv"
    point = grid(FIXED, ONE)[0]
    Results(path).add(row_of(point, {"error": error, "tg_cycles": 1}))
    (row,) = csv.DictReader(path.read_text(encoding="utf-8").split("\n"))
    assert row["error"] == " ".join(error.split()) and row["tg_cycles"] == "1"


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\n", b"\xff\xfe\n"])
def test_a_file_of_something_else_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(DlavmError, match="expected the results of a sweep"):
        Results(path)
    assert path.read_bytes() == content


def test_a_point_that_fails_is_a_row() -> None:
    for change, wrong in (({"quant": "bad"}, "got 'bad'"), ({"depth": 64}, "context of 64 positions, got 65"),
                          ({"model": "nowhere.py"}, "nowhere.py"), ({"target": "v2"}, "got v2"),
                          ({"kv": "mxint9"}, "mxint9"), ({"chunk": 65}, "--chunk"), ({"ctx": 0}, "--ctx"),
                          ({"accumulators": 1}, "")):  # fmt: skip
        row = measured(Point(**{**SMALL.__dict__, **change}))
        assert row["error"] and wrong in row["error"], change
        assert "internal" not in row["error"]
        assert row["tg_cycles"] == "" and float(row["seconds"]) >= 0


def test_a_row_is_what_cycles_says(capsys: pytest.CaptureFixture[str]) -> None:
    row = measured(Point(**{**SMALL.__dict__, "depth": 20, "prompt": 12}))
    assert not row["error"], row
    assert main(["cycles", STORIES, "--target", "v3", "--board", "nano", "--ctx", "64", "--chunk", "8", "-d", "20",
                 "-p", "12", "--json"]) == 0  # fmt: skip
    prompt, token = json.loads(capsys.readouterr().out)["rows"]
    assert int(row["pp_cycles"]) == prompt["cycles"] and int(row["tg_cycles"]) == token["cycles"]
    assert float(row["tg_tok_s"]) == pytest.approx(token["tok_s"], rel=1e-5)
    assert float(row["tg_memory_share"]) == pytest.approx(token["memory_share"], rel=1e-5)
    assert row["tg_bound"] == "memory" and 0 < float(row["tg_control_share"]) < 0.1 and row["lacks"] == ""


def test_other_buffers_make_another_board() -> None:
    spec = load_target("v3", "nano")
    assert with_buffers(spec, None, None) is spec
    other = with_buffers(spec, None, 2048)
    assert other.board.accumulators == 2048 and other.board.activation_elements == spec.board.activation_elements
    assert len({spec.hash, other.hash, with_buffers(spec, 4096, 2048).hash}) == 3
    assert with_buffers(spec, spec.board.activation_elements, spec.board.accumulators).hash == spec.hash
    with pytest.raises(DlavmError, match="buffers.accumulators"):
        with_buffers(spec, None, 1 << 40)


# -- workers ------------------------------------------------------------------------------------------------


def die_at_depth_one(point: Point) -> dict[str, str]:
    """In a process of the pool."""
    if point.depth == 1:
        os._exit(7)
    return row_of(point, {"tg_cycles": 10 + point.depth})


def test_a_process_that_dies_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "measured", die_at_depth_one)
    points = grid(FIXED, {**ONE, "depth": [0, 1, 2, 3]})
    rows = {row["depth"]: row for row in on_processes(points, 2)}
    assert sorted(rows) == ["0", "1", "2", "3"]
    assert "its process died" in rows["1"]["error"]
    assert [rows[d]["tg_cycles"] for d in ("0", "2", "3")] == ["10", "12", "13"]


def test_a_process_that_was_stopped_takes_no_more_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_is_stopped", False)
    taken: list[int] = []

    def measure(point: Point) -> dict[str, str]:
        taken.append(point.depth)
        if point.depth == 1:
            raise KeyboardInterrupt
        return {"depth": str(point.depth)}

    points = grid(FIXED, {**ONE, "depth": [0, 1, 2]})
    assert workers._unless_stopped(measure, points[0]) == {"depth": "0"}
    for point in points[1:]:
        with pytest.raises(KeyboardInterrupt):
            workers._unless_stopped(measure, point)
    assert taken == [0, 1]


def test_ray_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DlavmError, match=r"--ray: expected the package ray, got none; pip install 'dlavm\[ray\]'"):
        list(on_ray([SMALL], "auto"))


class FakeRay(ModuleType):
    """As much of ray as a sweep uses, in this process."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__("ray")
        self.address: object = "never"
        self.most = self.running = 0
        self.stopped = False
        self._fails = fails

    def init(self, address: str | None, **options: object) -> None:
        if self._fails:
            raise ConnectionError(f"nobody at {address}")
        self.address = address

    def shutdown(self) -> None:
        self.stopped = True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, **options: object) -> Any:
        def of(function: Any) -> Any:
            def call(point: Point) -> tuple[Any, Point]:
                self.running += 1
                self.most = max(self.most, self.running)
                return function, point

            return type("Remote", (), {"remote": staticmethod(call)})

        return of

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[:num_returns], references[num_returns:]

    def get(self, reference: Any) -> Any:
        self.running -= 1
        function, point = reference
        if point.depth == 1:
            raise RuntimeError("the worker died")
        return function(point)


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(workers, "measured", lambda point: row_of(point, {"tg_cycles": point.depth}))
    return fake


def test_points_on_a_cluster(fake_ray: FakeRay) -> None:
    points = grid(FIXED, {**ONE, "depth": list(range(9))})
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        rows = list(on_ray(points, address))
    assert fake_ray.address == address and fake_ray.stopped
    assert fake_ray.most == workers.IN_FLIGHT  # a cluster is not flooded
    assert {row["depth"] for row in rows} == {str(d) for d in range(9)}
    assert all(row["model"] == "m" for row in rows)  # as it was given, not where the worker found it
    assert [row["error"] for row in rows if row["error"]] == ["ray: RuntimeError: the worker died"]
    assert list(on_ray([], "local")) == [] and fake_ray.address is None


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(fails=True))
    with pytest.raises(DlavmError, match="--ray: expected a cluster at 'auto', got nobody at auto"):
        list(on_ray([SMALL], "auto"))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(DlavmError, match="--ray: expected a cluster at .* got .*refused"):
            list(on_ray([SMALL], address))


@pytest.mark.slow
def test_a_real_cluster_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(data_root())
    points = [Point(**{**SMALL.__dict__, "model": "models/stories.py", "depth": depth}) for depth in (0, 40)]
    rows = list(on_ray(points, "local"))
    assert {row["depth"]: row["error"] for row in rows} == {"0": "", "40": ""}
    here = measured(SMALL)
    assert next(row for row in rows if row["depth"] == "0")["tg_cycles"] == here["tg_cycles"]


# -- pictures -----------------------------------------------------------------------------------------------


def rows_of(axes: dict[str, list[Any]]) -> list[dict[str, str]]:
    points = grid(FIXED, {**ONE, **axes})
    return [row_of(p, {"tg_tok_s": 100.0 + i, "pp_tok_s": None}) for i, p in enumerate(points)]


def test_pictures() -> None:
    rows = rows_of({"board": ["nano", "kv<260"], "depth": [0, 100, 200]})
    assert varying(rows) == ["board", "depth"] and x_axis(rows) == "depth"
    assert list(series(rows, "depth", "tg_tok_s").items()) == [
        ("nano", [("0", 100.0), ("100", 101.0), ("200", 102.0)]),
        ("kv<260", [("0", 103.0), ("100", 104.0), ("200", 105.0)]),
    ]
    made = plots(rows)
    assert list(made) == ["tg_tok_s.svg"]  # there was no prompt
    root = ET.fromstring(made["tg_tok_s.svg"])
    circles = root.findall(".//{*}circle")
    assert len(circles) == 6
    assert len({circle.get("cx") for circle in circles}) == 3
    heights = [float(circle.get("cy", "")) for circle in circles]
    assert heights == sorted(heights, reverse=True)  # a larger rate is further up


def test_a_picture_over_names_and_of_one_point() -> None:
    rows = rows_of({"quant": ["int4g128", "mxfp4", "auto"]})
    assert x_axis(rows) == "quant"
    assert len(ET.fromstring(plots(rows)["tg_tok_s.svg"]).findall(".//{*}circle")) == 3
    assert len(ET.fromstring(plots(rows[:1])["tg_tok_s.svg"]).findall(".//{*}circle")) == 1
    many = {f"line {i}": [("0", 1.0), ("5", 2.0)] for i in range(40)}
    assert len(ET.fromstring(draw(many, "depth", "rate")).findall(".//{*}circle")) == 80
    assert plots([row_of(grid(FIXED, ONE)[0], {"error": "x"})]) == {}


@given(st.floats(1e-6, 1e12))
def test_ticks_are_round(most: float) -> None:
    ticks = round_ticks(most)
    assert ticks[0] == 0 and ticks[-1] <= most * (1 + 1e-9) and 4 <= len(ticks) <= 11


# -- the verb -----------------------------------------------------------------------------------------------


def test_the_verb_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sweep", STORIES, "--boards", "nano", "--ctx", "64", "--chunks", "8", "--depths", "0,63,64", "-o",
                 str(tmp_path), "--jobs", "2"]  # fmt: skip
    assert main([*arguments, "--json"]) == 1
    first = json.loads(capsys.readouterr().out)
    assert (first["points"], first["timed"], first["failed"]) == (3, 3, 1)
    assert [row["depth"] for row in first["rows"]] == ["0", "63", "64"]
    assert set(first["rows"][0]) == set(COLUMNS) >= set(KEYS) >= set(AXES)
    assert first["rows"][2]["error"].endswith("within the context of 64 positions, got 65")
    assert int(first["rows"][1]["tg_cycles"]) > int(first["rows"][0]["tg_cycles"])
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "3 points, 2 of them timed before, 1 failed" in out and "memory" in out
    assert ET.fromstring((tmp_path / "tg_tok_s.svg").read_text()).tag.endswith("svg")
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 4


def test_the_verb_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def one_then_stop(points: list[Point], jobs: int) -> Iterator[dict[str, str]]:
        yield row_of(points[1], {"tg_cycles": 7, "tg_tok_s": 1.5})
        raise KeyboardInterrupt

    monkeypatch.setattr("dlavm.verbs.sweep.on_processes", one_then_stop)
    assert main(["sweep", STORIES, "--boards", "nano", "--depths", "0,1,2", "-o", str(tmp_path)]) == 130
    captured = capsys.readouterr()
    assert "stopped; 1 of 3 points are timed, the same command goes on" in captured.err and not captured.out
    (row,) = csv.DictReader((tmp_path / "results.csv").read_text().splitlines())
    assert (row["depth"], row["tg_cycles"]) == ("1", "7")


def test_rows_of_another_state_are_timed_anew(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text("first")
    build = build_of(str(model))
    assert build_of(f"{model}:shape") == build == build_of(str(model)) != build_of(STORIES)
    (tmp_path / "notes").write_text("of no account")
    assert build_of(str(model)) == build
    model.write_text("second, longer")
    assert build_of(str(model)) != build
    (point,) = grid({**FIXED, "build": build}, ONE)
    Results(tmp_path / "r.csv").add(row_of(point, {"tg_cycles": 5}))
    again = Results(tmp_path / "r.csv")
    assert again.has(point) and not again.has(replace(point, build=build_of(str(model))))
    assert len(again.rows) == 1


@pytest.mark.parametrize(("arguments", "wrong"), [
    ([], "-o/--output"),
    (["-o", "x", "--boards", "nano,none"], "unknown board 'none'"),
    (["-o", "x", "--target", "v9"], "unknown target 'v9'"),
    (["-o", "x", "--depths", "0,-1"], "--depths"),
    (["-o", "x", "--depths", "5,5"], "expected every value once"),
    (["-o", "x", "--chunks", ""], "--chunks"),
    (["-o", "x", "--kvs", "fp16,"], "--kvs"),
    (["-o", "x", "--jobs", "0"], "--jobs"),
    (["-o", "x", "--jobs", "2", "--ray", "auto"], "--jobs: expected no --ray"),
    (["-o", "x", "--target", "v1"], "sweep: expected a target with a stream and scalars, got v1"),
    (["-o", "x", "--quants", "auto,int3"], "got 'int3'"),
    (["-o", "x", "--kvs", "mxint8,fp8"], "got 'fp8'"),
    (["-o", "x", "--weights", "nowhere"], "got 'nowhere'"),
])  # fmt: skip
def test_what_the_verb_refuses(arguments: list[str], wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", STORIES, *arguments]) == 2
    captured = capsys.readouterr()
    assert wrong in captured.err and not captured.out and not (tmp_path / "x").exists()
