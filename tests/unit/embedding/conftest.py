"""The encoder of the tests of embeddings."""

import pytest
import torch

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel


@pytest.fixture(scope="module")
def model():
    """Return a small encoder and its features."""
    torch.manual_seed(0)
    encoder = FastECAPA(80, channels=[16, 16, 16, 16, 48], lin_neurons=24)
    # Statistics as after some training.
    for _ in range(5):
        encoder(torch.randn(8, 60, 80) * 5)
    return encoder.eval(), LogMel()
