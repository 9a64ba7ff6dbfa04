"""doc/accuracy.md: every format is measured, and the bar holds in each row; the writer of its tables."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dlavm.formats import FORMATS
from dlavm.target import load_target

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "doc" / "accuracy.md").read_text(encoding="utf-8")
MODELS = ("stories", "stories260K")
BAR = 0.1  # per cent: the simulator against float32 on the same weights
ROWS = 8, 6  # cells of the tables of weights and of caches


@pytest.fixture(scope="module")
def writer() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        spec = importlib.util.spec_from_file_location("accuracy_page", ROOT / "scripts" / "accuracy_page.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "accuracy_page", module)  # dataclasses look there
        spec.loader.exec_module(module)
        yield module


def section(model: str) -> str:
    block = PAGE.split("<!-- begin benchmark: formats -->")[1].split("<!-- end benchmark: formats -->")[0]
    return block.split(f"### {model}\n")[1].split("\n### ")[0]


def rows(model: str, cells: int) -> list[list[str]]:
    """The rows of the table with so many cells, without its head."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in section(model).splitlines() if line.startswith("|")]  # fmt: skip
    return [row for row in lines if len(row) == cells and row[0] in FORMATS]


def percent(cell: str) -> float:
    assert re.fullmatch(r"[+-]\d+\.\d+%", cell), cell
    return float(cell[:-1])


@pytest.mark.parametrize("model", MODELS)
def test_every_format_of_v3_is_measured(model: str) -> None:
    wanted = [name for name in FORMATS if load_target("v3").has(name)]
    assert [row[0] for row in rows(model, ROWS[0])] == wanted
    assert len(rows(model, ROWS[1])) >= 4  # an MXINT8 cache, too
    tokens = re.search(r"([\d,]+) predicted tokens", section(model))
    assert tokens is not None and int(tokens[1].replace(",", "")) >= 1000


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("cells", ROWS)
def test_the_bar_holds(model: str, cells: int) -> None:
    """As stated, and as the two perplexities of the row say."""
    for row in rows(model, cells):
        quantised, engine, stated = float(row[-4]), float(row[-2]), percent(row[-1])
        assert abs(stated) <= BAR, row
        assert 100 * (engine / quantised - 1) == pytest.approx(stated, abs=0.005), row


@pytest.mark.parametrize("model", MODELS)
def test_the_losses_are_what_the_perplexities_say(model: str) -> None:
    plain = re.search(r"\*\*([\d.]+)\*\*", section(model))
    assert plain is not None
    for row in rows(model, ROWS[0]):
        assert percent(row[5]) == pytest.approx(100 * (float(row[4]) / float(plain[1]) - 1), abs=0.012), row
        assert re.search(rf"^[\d.]+ +{row[0]} .*{re.escape(row[5])}$", section(model), re.M), row  # the chart
    uncached = {row[0]: float(row[4]) for row in rows(model, ROWS[0])}
    for row in rows(model, ROWS[1]):
        assert percent(row[3]) == pytest.approx(100 * (float(row[2]) / uncached[row[0]] - 1), abs=0.005), row


def test_the_methods_say_what_their_perplexities_say() -> None:
    block = PAGE.split("<!-- begin benchmark: methods stories260K -->")[1].split("<!-- end")[0]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if "|" in line]
    plain, found = float(table[2][3]), table[3:]
    assert table[2][0] == "float weights" and "rtn" in table[0] and len(found) >= 4
    for name, *cells in found:
        assert name in FORMATS
        for cell in cells[2:]:
            perplexity, loss = cell.removesuffix(" %)").split(" (")
            assert float(loss) == pytest.approx(100 * (float(perplexity) / plain - 1), abs=0.012), (name, cell)


def made(writer: ModuleType, format: str, kv: str, quantised: float, tokens: int = 2000) -> object:
    return writer.Row("m", format, kv, tokens, 9, quantised, quantised * 1.0005, 7_000_000, 6_500_000, 2112)


def test_what_is_written(writer: ModuleType) -> None:
    found = [made(writer, "int4g128", "fp16", 4.4), made(writer, "int8g128", "fp16", 3.99),
             made(writer, "int4g128", "mxint8", 4.444)]  # fmt: skip
    text = writer.block({"m": 4.0}, found)
    assert text.startswith("### m\n\n2,000 predicted tokens, those of the first 9 documents")
    assert "| int4g128 | 4.125 | 7.00 | 6.50 | 4.4000 | +10.00% | 4.4022 | +0.0500% |" in text
    assert "| int4g128 | 2,112 (fp16: 2,112) | 4.4440 | +1.0000% | 4.4462 | +0.0500% |" in text
    assert f"4.125   int4g128   {'#' * writer.WIDTH} +10.00%\n8.125   int8g128   -0.25%\n" in text


def test_rows_of_different_texts_are_refused(writer: ModuleType) -> None:
    with pytest.raises(ValueError, match="rows of the same text"):
        writer.block({"m": 4.0}, [made(writer, "int4g128", "fp16", 4.4), made(writer, "mxfp4", "fp16", 4.4, 1000)])


@pytest.mark.parametrize(("name", "bits"), [("int4g32z", 4.75), ("mxfp6", 6.25), ("fp8g128", 8.125), ("int8g64", 8.25)])
def test_bits_of_a_weight(writer: ModuleType, name: str, bits: float) -> None:
    assert writer.bits_of(name) == bits
