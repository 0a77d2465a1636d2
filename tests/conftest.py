"""Fixtures for all tests; the only place that knows where real audio is."""

from speechbrain_ssl.runtime import set_up_process

set_up_process()

import os
import pathlib

import pytest
import torch

from speechbrain_ssl import progress

# On two shared cores, two busy threads are slower than one.
torch.set_num_threads(1)

# What a test finds on stderr must not depend on how long it took.
progress.INTERVAL = float("inf")

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository():
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data():
    """Return a folder with real corpora, or skip the test.

    ``SPEECHBRAIN_SSL_DATA`` names the folder; the default is beside the
    checkout.
    """
    folder = pathlib.Path(
        os.environ.get("SPEECHBRAIN_SSL_DATA", ROOT.parent / "shared" / "data")
    )
    if not folder.is_dir():
        pytest.skip("no real corpora here (set SPEECHBRAIN_SSL_DATA)")
    return folder
