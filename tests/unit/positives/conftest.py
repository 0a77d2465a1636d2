"""Embeddings of made-up voices, and SSPS with its memory filled."""

import numpy as np
import pytest
import torch

from speechbrain_ssl.objectives.simclr import SimCLR
from speechbrain_ssl.positives.ssps import SSPS


def _voices(utterances=60, speakers=6, size=12, spread=0.15, seed=0):
    rng = np.random.default_rng(seed)
    centers = np.linalg.qr(rng.normal(size=(size, size)))[0][:speakers]
    speaker = rng.permutation(np.arange(utterances) % speakers)
    rows = centers[speaker] + spread * rng.normal(size=(utterances, size))
    return torch.from_numpy(rows).float(), speaker


@pytest.fixture
def voices():
    """A function for embeddings ``[utterances, size]`` and speakers."""
    return _voices


def _make(rows, seen=None, batch=8, crops=2, vector_size=5, **options):
    options = {"clusters": 6, "queue": 30, "start_epoch": 2} | options
    ssps = SSPS(**options)
    ssps.set_up(
        SimCLR(),
        utterances=len(rows),
        reference_size=rows.shape[1],
        crops=crops,
        vector_size=vector_size,
        batch=batch,
        seed=11,
    )
    if seen is None:
        seen = np.random.default_rng(1).permutation(len(rows)).tolist()
    order = torch.tensor(list(seen), dtype=torch.int64)
    generator = torch.Generator().manual_seed(2)
    for index in order.split(batch) if len(order) else ():
        vectors = torch.randn(
            len(index), crops, vector_size, generator=generator
        )
        ssps.observe(index, 3 * rows[index], vectors)
        ssps.after_step()
    return ssps


@pytest.fixture
def make():
    """A function for an SSPS that has seen some utterances of ``rows``."""
    return _make
