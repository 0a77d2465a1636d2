"""MoCo with a batch norm for each process and shuffled keys."""

import pathlib

import moco_ranks
import pytest
import tiny
import tiny_objectives
import torch

from speechbrain_ssl.data.draws import permutation

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]

SCRIPT = pathlib.Path(moco_ranks.__file__)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Return what the two processes have written."""
    folder = tmp_path_factory.mktemp("ranks")
    status, stderr = tiny.torchrun(SCRIPT, "keys", folder)
    assert status == 0, stderr
    return [
        torch.load(folder / f"rank{r}.pt", weights_only=True) for r in (0, 1)
    ]


def test_rows_are_dealt_out_and_come_back(ranks):
    x = moco_ranks.inputs()
    order = torch.from_numpy(permutation(8, 1, "any"))
    for number, rank in enumerate(ranks):
        mine = slice(4 * number, 4 * number + 4)
        assert torch.equal(rank["dealt"], x[order[mine]])
        assert torch.equal(rank["back"], x[mine])
    # Rows changed sides.
    assert not torch.equal(ranks[0]["dealt"], x[:4])


def test_keys_are_normalised_with_others_and_come_back_in_order(ranks):
    """Equal to a computation in one process, group by group."""
    means = moco_ranks.inputs().double().mean(2)
    order = permutation(
        8, moco_ranks.SEED, moco_ranks.EPOCH, moco_ranks.STEP, "keys"
    )
    wanted = torch.empty_like(means)
    for group in (order[:4], order[4:]):
        rows = means[group]
        centred = rows - rows.mean((0, 1))
        variance = centred.square().mean((0, 1))
        wanted[group] = centred / (variance + 1e-5).sqrt()
    found = torch.cat([rank["keys"] for rank in ranks]).double()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    # A batch norm over both processes, or over each process's own rows, would
    # give other keys.
    for groups in ([range(8)], [range(4), range(4, 8)]):
        for group in groups:
            rows = means[list(group)]
            other = (rows - rows.mean((0, 1))) / rows.std((0, 1))
            assert (other - found[list(group)]).abs().max() > 0.1


def test_running_statistics_are_those_of_the_first_process(ranks):
    first, second = (rank["statistics"] for rank in ranks)
    assert not torch.allclose(first[0], second[0])
    assert torch.equal(first[1], first[0])
    assert torch.equal(second[1], first[0])


def command(corpus, output, **overrides):
    path = tiny_objectives.configuration(corpus, "moco", batch_norm="shuffled")
    options = {"ckpt_interval_steps": 1, "batch_size": 8, **overrides}
    return tiny_objectives.argv(corpus, path, output, **options)


def test_two_processes_resume_bit_for_bit(corpus, tmp_path):
    """In the middle of an epoch, with the same permutations of the keys."""
    runs = {}
    for name, steps in (("whole", [0]), ("cut", [5, 0])):
        argv = command(
            corpus,
            tmp_path / name,
            number_of_epochs=2,
            distributed_backend="gloo",
        )
        for step in steps:
            status, stderr = tiny.torchrun(
                SCRIPT, "train", step, tiny.TRAIN, *argv
            )
            assert status == 0, stderr
        runs[name] = tiny.lines(tmp_path / name)
    assert runs["whole"] == runs["cut"]
    parts = tiny_objectives.CASES["moco"].parts
    tiny.assert_identical(tmp_path / "whole", tmp_path / "cut", parts)


def test_in_one_process_there_is_nothing_to_shuffle(corpus, train, tmp_path):
    """Both kinds are the same run, bit by bit."""
    train.main(command(corpus, tmp_path / "shuffled", number_of_epochs=1))
    path = tiny_objectives.configuration(corpus, "moco")
    options = {"number_of_epochs": 1, "batch_size": 8}
    options["ckpt_interval_steps"] = 1
    train.main(
        tiny_objectives.argv(corpus, path, tmp_path / "plain", **options)
    )
    parts = tiny_objectives.CASES["moco"].parts
    tiny.assert_identical(tmp_path / "shuffled", tmp_path / "plain", parts)
