"""Every benchmark runs to its end, with the shortest options; the numbers are not checked."""

import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"
OPTIONS = {
    "activation_floor": ("--repeats", "1"),
    "activation_speed": ("--quick", "--only", "sizes"),
    "backend_speed": ("--repeats", "1", "--inner", "1"),
    "chip_study": ("--only", "small", "--samples", "100", "--repeats", "1"),
    "llg_speed": ("--rounds", "1", "--cells", "10"),
    "many_models": ("--models", "1", "--repeats", "1"),
    "search_workers": ("--trials", "2", "--epochs", "1"),
    "serving_throughput": ("--starts", "1", "--rounds", "1", "--sizes", "small"),
}


def test_the_list_is_complete():
    modules = {path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text()}
    assert modules == set(OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_benchmark_runs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", *OPTIONS[name]],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
