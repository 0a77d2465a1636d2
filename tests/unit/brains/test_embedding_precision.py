"""Passes over the training set use the precision and the batch asked for."""

import types

import numpy as np
import pytest
import torch
from positives_noise import write_voices

from speechbrain_ssl.brains import positives as brain_positives
from speechbrain_ssl.brains.embedded_halves import EmbeddedHalves
from speechbrain_ssl.brains.positives import ClusterAwarePositives
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.positives.cluster_aware import ClusterAware

UTTERANCES = 12


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_voices(tmp_path_factory.mktemp("voices"), UTTERANCES, hum=0.3)


@pytest.fixture
def ready(make_brain, manifest):
    """Return ``ready(eval_precision)`` -> Brain that can embed the manifest."""

    def made(eval_precision):
        brain = make_brain.brain(
            run_opts={"eval_precision": eval_precision},
            num_workers=0,
            valid_seconds=0.4,
        )
        brain.features = LogMel(n_mels=20)
        brain.train_manifest = manifest
        brain.modules.eval()
        # The evaluated encoder of a Brain with a teacher is the teacher's.
        brain.teacher = types.SimpleNamespace(encoder=brain.modules.encoder)
        seen = []
        brain.modules.encoder.register_forward_hook(
            lambda *_: seen.append(
                torch.is_autocast_enabled("cpu")
                and torch.get_autocast_dtype("cpu")
            )
        )
        return brain, seen

    return made


@pytest.mark.parametrize(
    "eval_precision, dtype", [("fp32", False), ("bf16", torch.bfloat16)]
)
def test_passes_are_in_eval_precision(ready, eval_precision, dtype):
    """Of cluster-aware sampling, and of the start rule of SSPS."""
    brain, seen = ready(eval_precision)
    rule = ClusterAware(clusters=2, start_epoch=2)
    rows = ClusterAwarePositives(brain, rule)._embed_training_set()
    assert rows.shape == (UTTERANCES, 10) and rows.dtype == torch.float32
    assert seen and set(seen) == {dtype}
    seen.clear()
    halves = EmbeddedHalves(brain, np.arange(UTTERANCES)).embed(2, 10)
    assert halves.shape == (UTTERANCES, 2, 10)
    assert halves.dtype == torch.float32
    assert seen and set(seen) == {dtype}


def test_the_batch_is_that_of_the_configuration(ready, monkeypatch):
    """And 200 s, as in the rounds of pseudo-labels, unless set."""
    asked = []

    def noted(*_, batch_seconds, **__):
        asked.append(batch_seconds)
        return np.zeros((UTTERANCES, 3), np.float32)

    monkeypatch.setattr(brain_positives, "embed_files", noted)
    brain, _ = ready("fp32")
    for options in ({}, {"embed_batch_seconds": 7.0}):
        rule = ClusterAware(clusters=2, start_epoch=2, **options)
        ClusterAwarePositives(brain, rule)._embed_training_set()
    assert asked == [200.0, 7.0]
