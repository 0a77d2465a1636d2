"""Fixtures for tests that run whole recipes."""

import pytest
import tiny
import tiny_faces
from speechbrain.utils import logger as sb_logger

from speechbrain_ssl.brains import finish
from speechbrain_ssl.brains import rounds as rounds_module


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Return the tiny corpus."""
    return tiny.Corpus(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def drawn_faces(corpus):
    """Return the pictures of the tiny corpus."""
    return tiny_faces.Faces(corpus)


@pytest.fixture(scope="session")
def train():
    """Return ``train.py`` as a module: ``train.main(argv)`` in this process."""
    return tiny.load_train()


def leave_out_reports(patch):
    """Skip the reports, the slowest part of a short run."""
    patch.setattr(finish, "build_report", lambda *_, **__: None)
    patch.setattr(rounds_module, "build_rounds_report", lambda *_: None)
    # It would call pip for every training stage.
    patch.setattr(sb_logger, "get_environment_description", lambda: "")


@pytest.fixture
def no_report(monkeypatch):
    """Skip the report, the slowest part of a short run."""
    leave_out_reports(monkeypatch)


@pytest.fixture(scope="session")
def reference(corpus, train, tmp_path_factory):
    """Return the folder of an uninterrupted run of two epochs."""
    output = tmp_path_factory.mktemp("reference") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_reports(patch)
        train.main(corpus.argv(output))
    return output


@pytest.fixture(scope="session")
def rounds():
    """Return the ``train.py`` of pseudo-labels: ``rounds.main(argv)``."""
    return tiny.load_train(tiny.ROUNDS)


@pytest.fixture(scope="session")
def ssl_model(corpus, train, tmp_path_factory):
    """Return the output folder of a self-supervised run of one epoch."""
    output = tmp_path_factory.mktemp("ssl") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_reports(patch)
        train.main(corpus.argv(output, number_of_epochs=1))
    return output


@pytest.fixture(scope="session")
def two_rounds(corpus, rounds, ssl_model, tmp_path_factory):
    """Return the folder of two uninterrupted rounds, with all defaults."""
    output = tmp_path_factory.mktemp("rounds") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_reports(patch)
        rounds.main(corpus.rounds_argv(output, ssl_model))
    return output
