"""Fixtures of the tests that run whole recipes."""

import pytest
import tiny

from speechbrain_ssl.brains import finish


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The tiny corpus."""
    return tiny.Corpus(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def train():
    """``train.py`` as a module: ``train.main(argv)`` in this process."""
    return tiny.load_train()


@pytest.fixture
def no_report(monkeypatch):
    """Leaves out the report, the slowest part of a run of seconds."""
    monkeypatch.setattr(finish, "build_report", lambda *_, **__: None)


@pytest.fixture(scope="session")
def reference(corpus, train, tmp_path_factory):
    """An uninterrupted run of two epochs, with everything at its default."""
    output = tmp_path_factory.mktemp("reference") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "build_report", lambda *_, **__: None)
        train.main(corpus.argv(output))
    return output
