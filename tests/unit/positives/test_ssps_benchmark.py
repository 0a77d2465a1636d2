"""The cost of SSPS in a step: the script runs, at a toy size."""

import csv
import pathlib
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_ssps_benchmark_runs(tmp_path):
    """All three parts take time, and SSPS finds partners."""
    root = pathlib.Path(__file__).resolve().parents[3]
    script = root / "tests" / "benchmarks" / "ssps_step.py"
    table = tmp_path / "table.csv"
    command = [sys.executable, str(script), f"--csv={table}", "--channels=16"]
    command += ["--utterances=400", "--clusters=20", "--queue=300"]
    command += ["--batch=8", "--seconds=0.5", "--reference_seconds=0.5"]
    command += ["--steps=2"]
    subprocess.run(command, timeout=120, check=True)
    with open(table, encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["channels"], row["steps"]) == ("16", "2")
    # Queue and clusters are full: a partner is found for most.
    assert float(row["coverage"]) > 0.5
    for part in ("step", "reference", "ssps"):
        assert float(row[f"{part}_seconds"]) > 0
