"""A ResNet in whole runs of ``train.py``; all other tests use an ECAPA."""

import math

import pytest
import tiny
import tiny_objectives
import torch
from test_objectives_resume import check
from tiny import torchrun
from tiny_objectives import STEPS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]

PARTS = tiny_objectives.CASES["simclr"].parts

ECAPA = """\
/hparams/encoders/ecapa_mini.yaml
    channels: 16
    pooled_channels: 48
"""
RESNET = """\
/hparams/encoders/fast_resnet34.yaml
    channels: 8
    embedding_size: 32
"""


@pytest.fixture
def configuration(corpus):
    """Write a configuration of SimCLR with a small FastResNet34."""
    path = tiny_objectives.configuration(corpus, "simclr")
    text = path.read_text()
    assert text.count(ECAPA) == 1
    path = path.with_name("simclr_resnet.yaml")
    path.write_text(text.replace(ECAPA, RESNET))
    return path


def test_it_trains_and_goes_on(corpus, train, tmp_path, configuration):
    """A run that ends in the second epoch resumes bit for bit."""
    lines = check(corpus, train, tmp_path, configuration, PARTS, 2, [5])
    assert all(math.isfinite(line["loss"]) for line in lines)
    first, second = (
        tiny.tensors(torch.load(path, weights_only=True))
        for path in sorted((tmp_path / "cut" / "save" / "weights").iterdir())
    )
    moved = {key for key in first if not torch.equal(first[key], second[key])}
    # One in the stem, two in each of 16 blocks, three in the shortcuts.
    convolutions = {key for key in first if "conv" in key}
    means = {key for key in first if key.endswith("running_mean")}
    assert (len(convolutions), len(means)) == (33, 36)
    assert convolutions | means <= moved


def test_two_processes_are_one(corpus, train, tmp_path, configuration):
    """Losses and weights are equal up to the order of additions."""
    # Adam's first steps depend on signs: see test_distributed.py.
    text = configuration.read_text().replace("AdamW", "SGD")
    text = text.replace("betas: [0.9, 0.99]", "momentum: 0.9")
    configuration.write_text(text)
    options = {"number_of_epochs": 1, "lr": 0.002}
    one, two = tmp_path / "one", tmp_path / "two"
    train.main(tiny_objectives.argv(corpus, configuration, one, **options))
    options |= {"batch_size": 8, "distributed_backend": "gloo"}
    status, stderr = torchrun(
        tiny.TRAIN,
        *tiny_objectives.argv(corpus, configuration, two, **options),
    )
    assert status == 0, stderr
    ours, theirs = tiny.lines(two), tiny.lines(one)
    assert len(ours) == len(theirs) == STEPS
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
    tiny.assert_close(*(tiny.final_tensors(each, PARTS) for each in (two, one)))
