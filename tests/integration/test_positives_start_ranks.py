"""Two processes decide together whether SSPS may start."""

import json
import pathlib

import pytest
import tiny
import tiny_objectives
from test_distributed import torchrun

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]

SCRIPT = pathlib.Path(__file__).with_name("positives_start_ranks.py")


def run(corpus, folder, how):
    """What both processes have found."""
    path = tiny_objectives.configuration(
        corpus, "moco", "ssps", speaker_count=4
    )
    argv = tiny_objectives.argv(
        corpus,
        path,
        folder / "run",
        batch_size=8,
        distributed_backend="gloo",
    )
    status, stderr = torchrun(SCRIPT, how, folder, tiny.TRAIN, *argv)
    assert status == 0, stderr
    return [json.loads((folder / f"rank{r}.json").read_text()) for r in (0, 1)]


@pytest.mark.parametrize("how", ["yes", "rule"])
def test_the_first_process_decides_for_both(corpus, tmp_path, how):
    """It alone is asked, and all that follows is the same in both."""
    found = run(corpus, tmp_path, how)
    assert [f["error"] for f in found] == [None, None]
    start = found[0]["start"]
    assert found[1]["start"] == start
    if how == "yes":
        assert [f["asked"] for f in found] == [1, 0] and start == 2
    # Whatever it says of an untrained encoder.
    assert start in (2, 3)
    covered = ["coverage" in line for line in tiny.lines(tmp_path / "run")]
    steps = tiny_objectives.STEPS
    assert covered == [False] * steps + [start == 2] * steps


def test_an_error_of_the_first_process_ends_both(corpus, tmp_path):
    """The other one would wait for it, for hours."""
    first, second = run(corpus, tmp_path, "error")
    assert first["error"] == "AudioError: a file of the first process"
    assert second["error"].startswith("ConfigError: the first process could")
    assert first["start"] == second["start"] == 2
