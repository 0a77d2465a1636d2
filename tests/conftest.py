"""Fixtures for all tests; the one place that knows where real audio lies."""

from speechbrain_ssl.runtime import set_up_process

set_up_process()

import os
import pathlib

import pytest
import torch

# Two busy threads on two shared cores are slower than one.
torch.set_num_threads(1)

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository():
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data():
    """A folder with real corpora, or a skip where there is none.

    ``SPEECHBRAIN_SSL_DATA`` names it; beside the checkout is the default.
    """
    folder = pathlib.Path(
        os.environ.get("SPEECHBRAIN_SSL_DATA", ROOT.parent / "shared" / "data")
    )
    if not folder.is_dir():
        pytest.skip("no real corpora here (set SPEECHBRAIN_SSL_DATA)")
    return folder
