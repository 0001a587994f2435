"""The benchmark for a GPU in its small form on the CPU: every part gives a row, and what failed is written."""

import importlib.util
import json

import pytest
from source_tree import ROOT

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@pytest.fixture
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "Testing/benchmarks/gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_time_every_part_still_measures_one_row(gpu, tmp_path, monkeypatch):
    def broken(bench):
        yield lambda: 1 / 0

    monkeypatch.setitem(gpu.PARTS, "broken", (0.1, broken))
    monkeypatch.delitem(gpu.PARTS, "compiled")  # tracing takes half a minute
    small = ["--device", "cpu", "--size", "small", "--minutes", "0", "-o", str(tmp_path)]
    assert gpu.main(small) == 1
    parts = json.loads((tmp_path / "results.json").read_text("utf-8"))["parts"]
    assert list(parts) == ["windows", "case", "training", "pipeline", "step_down", "broken"]
    assert parts["broken"][0]["error"] == "ZeroDivisionError: division by zero"
    first = {name: rows[0] for name, rows in parts.items()}
    assert first["windows"]["equal"] and first["windows"]["dice_with_cpu"] == 1 and first["case"]["windows"] == 12
    assert first["training"]["patch"] == first["pipeline"]["patch"] == 32
    assert first["step_down"]["skipped"] == "a limit of memory can only be set for CUDA"
    left_out = [{"left_out": "the part's time was over"}]
    assert [parts[name][1:] for name in ("windows", "case", "training", "pipeline", "step_down")] == [left_out] * 5
