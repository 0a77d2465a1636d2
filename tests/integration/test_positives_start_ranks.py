"""Two processes decide together whether SSPS may start."""

import pathlib

import pytest
import tiny
import tiny_objectives
import torch
from tiny import torchrun

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]

SCRIPT = pathlib.Path(__file__).with_name("positives_start_ranks.py")


def run(corpus, folder, how):
    """Return the results of both processes."""
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
    return [
        torch.load(folder / f"rank{r}.pt", weights_only=True) for r in (0, 1)
    ]


def covered(folder, start):
    """Return whether only epochs from ``start`` on replaced positives."""
    steps = ["coverage" in line for line in tiny.lines(folder / "run")]
    first = [False] * tiny_objectives.STEPS
    return steps == first + [start == 2] * tiny_objectives.STEPS


def test_each_embeds_its_share_and_all_judge_all(corpus, tmp_path):
    """All ranks have the same references and reach one verdict."""
    first, second = run(corpus, tmp_path, "rule")
    assert not set(first["read"]) & set(second["read"])
    for mine, others in zip(
        first["references"], second["references"], strict=True
    ):
        _, utterances, _ = mine.shape
        assert utterances == len(set(first["read"] + second["read"]))
        assert torch.equal(mine, others)
        assert (mine.norm(dim=2) > 0).all()
    assert first["tables"] == second["tables"] and first["tables"][0]
    assert first["verdicts"] == second["verdicts"]
    # The verdict on an untrained encoder does not matter here.
    assert first["start"] == second["start"] in (2, 3)
    assert covered(tmp_path, first["start"])


def test_the_word_of_the_first_process_counts(corpus, tmp_path):
    """If verdicts differ, all ranks follow that of rank 0."""
    first, second = run(corpus, tmp_path, "differ")
    assert first["verdicts"] == [(True, 2)]
    assert second["verdicts"] == [(False, 3)]
    assert [f["start"] for f in (first, second)] == [2, 2]
    assert [f["clusters"] for f in (first, second)] == [2, 2]
    assert covered(tmp_path, 2)
