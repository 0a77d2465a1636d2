"""Rounds with voices and faces, through the recipe's script."""

import json

import pytest
import tiny
import tiny_faces

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(scope="module")
def faces(corpus):
    """Return the pictures of the tiny corpus."""
    return tiny_faces.Faces(corpus)


@pytest.fixture(scope="module")
def script():
    """Return the ``train.py`` of the recipe."""
    return tiny.load_train(tiny_faces.ROUNDS)


def test_two_rounds(corpus, faces, script, ssl_model, tmp_path):
    script.main(
        faces.argv(
            tmp_path / "run",
            ssl_model,
            trials=corpus.trials,
            trials_folder=corpus.audio / "wav",
            trials_faces=faces.trials_csv,
        )
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"eer", "face_eer", "both_eer"} <= set(results)
