"""A run where there is no home, no terminal, no UTF-8, and where names have spaces."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def call(tmp_path):
    """``call(*command)`` runs a command there and returns what it said."""
    environment = {
        **tiny.environment(),
        # Nothing can be written below a file.
        "HOME": os.path.join(os.devnull, "home"),
        "LC_ALL": "C",
        "PYTHONIOENCODING": "cp1252",
    }
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "LANG"):
        environment.pop(name, None)

    def run(*command):
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=os.path.abspath(os.sep),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
        )
        said = (done.stdout + done.stderr).decode("cp1252")
        assert done.returncode == 0, said
        # A bar that is redrawn; a line break of Windows is none.
        assert "\r" not in said.replace("\r\n", "\n")
        return said

    return run


def test_training(corpus, reference, tmp_path, call):
    """The weights are those of a run at home, bit for bit."""
    output = tmp_path / "my run"
    argv = corpus.argv(output, num_workers=1)
    said = call(tiny.TRAIN, *[a for a in argv if a != "--noprogressbar"])
    assert "epoch 2 of 2: loss" in said
    tiny.assert_identical(output, reference)


def test_embedding(corpus, reference, tmp_path, call):
    folder = tmp_path / "my files"
    shutil.copytree(next((corpus.audio / "wav").glob("id1*")), folder)
    output = tmp_path / "of my files.npz"
    command = "-m speechbrain_ssl.cli.main embed".split()
    said = call(*command, folder, f"--model={reference}", f"--output={output}")
    assert "14 of 14 files embedded" in said
    assert np.isfinite(np.load(output)["embeddings"]).all()
