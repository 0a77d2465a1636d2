"""Two processes on CPUs give the same results as one with the same batch."""

import os
import pathlib

import collectives
import numpy as np
import pytest
import tiny
import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.dataset import CropDataset
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.data.sampling import EpochBatchSampler
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.simclr import SimCLR
from speechbrain_ssl.sync_batch_norm import synchronise_batch_norms

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]


# -- collectives ---------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Return the results of the two processes of ``collectives.py``."""
    folder = tmp_path_factory.mktemp("ranks")
    script = pathlib.Path(__file__).with_name("collectives.py")
    status, stderr = tiny.torchrun(script, folder)
    assert status == 0, stderr
    return [
        torch.load(folder / f"rank{r}.pt", weights_only=True) for r in (0, 1)
    ]


def whole(name):
    """Apply a plain batch norm to the whole batch."""
    net = collectives.norm(0, collectives.SHAPES[name])
    x = collectives.shaped(name).clone().requires_grad_()
    y = net(x)
    collectives.loss_of(y).backward()
    return net, x, y


@pytest.mark.parametrize("shape", collectives.SHAPES)
def test_batch_norm_is_that_of_the_whole_batch(ranks, shape):
    """Output, gradients, running statistics and evaluation mode are equal."""
    net, x, y = whole(shape)
    found = [rank[shape] for rank in ranks]
    assert {f["type"] for f in found} == {"SyncBatchNorm"}
    close = torch.testing.assert_close

    def joined(name):
        return torch.cat([f[name] for f in found])

    close(joined("y"), y.detach(), rtol=1e-4, atol=1e-5)
    close(joined("x_grad"), x.grad, rtol=1e-4, atol=1e-6)
    for f in found:
        close(f["weight_grad"], net[0].weight.grad, rtol=1e-4, atol=1e-6)
        close(f["bias_grad"], net[0].bias.grad, rtol=1e-4, atol=1e-6)
        for name, value in net[0].state_dict().items():
            close(f["state"][name], value, rtol=1e-4, atol=1e-5)
    # Averaging was needed: the gradients of the ranks differed.
    assert not torch.allclose(found[0]["local_grad"], found[1]["local_grad"])
    close(joined("evaluated"), net.eval()(x).detach(), rtol=1e-4, atol=1e-5)


def test_local_statistics_would_be_others(ranks):
    """The test above could fail: half a batch has another mean."""
    net = collectives.norm(0)
    half = net(collectives.inputs()[:4])
    assert (half - ranks[0]["three"]["y"]).abs().max() > 0.1


def test_stock_sync_batch_norm_fails_on_cpus(ranks):
    """This stock behaviour makes our own batch norm necessary."""
    for rank in ranks:
        assert "GPU" in rank["stock"]


def test_means_and_gradients(ranks):
    """Gradients are averaged in place; a missing one stays missing."""
    for number, rank in enumerate(ranks):
        assert (rank["rank"], rank["world"]) == (number, 2)
        assert rank["mean"].tolist() == [1.5, 3.0]
        assert rank["kept"].tolist() == [1.0 + number, 2.0 + 2 * number]
        # The mean of 1, 3, 11 and 13, also after a resume.
        assert rank["running"] == rank["resumed"] == {"loss": 7.0}
        first, second, third = rank["averaged"]
        assert torch.equal(first, torch.full((3,), 0.5))
        assert torch.equal(second, 5 * torch.eye(2))
        assert third is None


def test_simclr_sees_the_negatives_of_all_ranks(ranks):
    """Loss and gradient equal those of the global batch in one process."""
    weight = torch.nn.Parameter(torch.eye(7)[:4].clone())
    views = collectives.inputs()[:, :2] @ weight.T
    objective = SimCLR(temperature=0.2)
    branch = Branch(views, views, objective.head)
    loss, _ = objective(branch, branch)
    loss.backward()
    for found in ranks:
        torch.testing.assert_close(found["simclr"]["loss"], loss.detach())
        torch.testing.assert_close(found["simclr"]["grad"], weight.grad)


def test_a_single_process_is_left_alone():
    """Without a process group all functions are no-ops."""
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    assert synchronise_batch_norms(net) is net
    assert type(net[0]) is torch.nn.BatchNorm1d
    tensor = torch.ones(2)
    assert distributed.mean_over_ranks(tensor) is tensor
    distributed.average_gradients([])
    distributed.broadcast_state([net])
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


# -- training --------------------------------------------------------------------


def sgd(corpus, output, **overrides):
    """Return a command line with SGD instead of Adam.

    The first steps of Adam depend on the signs of gradients: a difference in
    the last bit of a gradient near zero would become that of a whole step.
    """
    path = corpus.yaml.with_name("sgd.yaml")
    text = corpus.yaml.read_text().replace("AdamW", "SGD")
    path.write_text(text.replace("betas: [0.9, 0.99]", "momentum: 0.9"))
    options = {"number_of_epochs": 1, "lr": 0.002, **overrides}
    return [str(path), *corpus.argv(output, **options)[1:]]


@pytest.fixture(scope="module")
def pair(corpus, tmp_path_factory):
    """Run two processes with half the batch each."""
    output = tmp_path_factory.mktemp("pair") / "run"
    argv = sgd(corpus, output, batch_size=4, distributed_backend="gloo")
    status, stderr = tiny.torchrun(tiny.TRAIN, *argv)
    assert status == 0, stderr
    return output


def test_two_processes_are_one(corpus, train, pair, tmp_path):
    """Losses and weights are equal up to the order of additions."""
    train.main(sgd(corpus, tmp_path, batch_size=8))
    ours, theirs = tiny.lines(pair), tiny.lines(tmp_path)
    assert len(ours) == len(theirs) == tiny.STEPS
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for key in set(mine) - {"stage"}:
            # The norm of all gradients is the least stable value.
            most = 1e-3 if key == "grad_norm" else 1e-4
            assert mine[key] == pytest.approx(other[key], rel=most), key
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=1e-5)
    tiny.assert_close(tiny.final_tensors(pair), tiny.final_tensors(tmp_path))


def test_only_the_first_process_writes(pair):
    """There is one checkpoint, one line per step, and one set of weights."""
    steps = [line["step"] for line in tiny.lines(pair)]
    assert steps == list(range(1, tiny.STEPS + 1))
    assert len(tiny.lines(pair, "valid")) == 1
    assert len(os.listdir(pair / "save" / "checkpoints")) == 1
    assert len(os.listdir(pair / "save" / "weights")) == 1
    assert tiny.results(pair)["effective_batch"] == 8


def test_ranks_share_a_global_batch_and_differ_in_crops(corpus):
    """Together the ranks see what one process sees, each its own crops."""
    manifest = Manifest.read(corpus.train_csv)
    count = len(manifest)
    one = EpochBatchSampler(count, 8, seed=7)
    parts = [EpochBatchSampler(count, 4, 7, rank, 2) for rank in (0, 1)]
    for sampler in (one, *parts):
        sampler.set_epoch(2)
    dataset = CropDataset(manifest, CropPlan(2, 0.5), seed=7)
    for batch, *halves in zip(one, *parts, strict=True):
        assert batch == halves[0] + halves[1]
        assert len(set(batch)) == 8
    first, second = (
        dataset.collate([dataset[item] for item in half]).crops[0]
        for half in halves
    )
    assert not np.intersect1d(first[..., 100], second[..., 100]).size
    starts = [
        tuple(dataset.plan.starts(20000, (7, 2, manifest.keys[i]))[0])
        for _, i in batch
    ]
    assert len(set(starts)) == 8
