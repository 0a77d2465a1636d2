"""A batch that is too small for batch norms of whole crops."""

import pytest
import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.encoding import check_rows
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.resnet import ResNet34
from speechbrain_ssl.errors import ConfigError

ONE, FOUR = CropPlan(1, 0.5), CropPlan(1, 0.5, local_crops=4)


def resnet(**options):
    return ResNet34(20, 4, channels=2, blocks=[1] * 4, **options)


def ecapa():
    return FastECAPA(20, channels=[8] * 4 + [24], lin_neurons=4)


@pytest.mark.parametrize(
    "make", [ecapa, lambda: resnet(embedding_batch_norm=True)]
)
def test_one_crop_is_refused_and_few_are_warned_of(make, caplog, monkeypatch):
    encoder = make()
    for plan in (ONE, FOUR):
        with pytest.raises(ConfigError, match="one crop: raise `batch_size`"):
            check_rows(encoder, plan, batch_size=1)
    # What is refused would fail indeed.
    with pytest.raises(ValueError, match="more than 1 value"):
        encoder.train()(torch.randn(1, 40, 20))
    assert not caplog.text
    check_rows(encoder, CropPlan(2, 0.5), batch_size=1)
    assert "trained on 2 crops at a time" in caplog.text
    caplog.clear()
    check_rows(encoder, ONE, batch_size=8)
    assert not caplog.text
    # Batch norms are synchronised.
    monkeypatch.setattr(distributed, "world_size", lambda: 8)
    check_rows(encoder, ONE, batch_size=1)
    assert not caplog.text
    # Or not (MoCo with shuffled keys): the other processes do not help.
    with pytest.raises(ConfigError, match="one crop"):
        check_rows(encoder, ONE, batch_size=1, synchronised=False)


def test_without_such_norms_one_crop_will_do(caplog):
    check_rows(resnet(), ONE, batch_size=1)
    # Encoders of others say nothing about it.
    check_rows(torch.nn.Linear(2, 2), ONE, batch_size=1)
    assert not caplog.text
    assert torch.isfinite(resnet().train()(torch.randn(1, 40, 20))).all()


def test_refused_before_the_first_step(make_brain):
    brain = make_brain.brain(batch_size=1, crops=ONE)
    with pytest.raises(ConfigError, match="raise `batch_size`"):
        brain.on_fit_start()
