"""The threshold that a run without trials leaves, wherever it is needed."""

import numpy as np
import pytest
import soundfile
import tiny
import torch
import yaml

from speechbrain_ssl import load_model
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.publishing.bundle import threshold_of
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.verification.label_free_threshold import (
    label_free_threshold,
    raise_for_many,
)

WHY = "made without labels, from halves of held-out utterances"


@torch.no_grad()
def by_hand(model, corpus):
    """Compute the threshold from the held-out files, one half at a time."""
    encoder, features = load_encoder(model)
    _, held_out = Manifest.read(corpus.train_csv).hold_out(8, 0.8)
    rows = []
    for index in range(8):
        wave, _ = soundfile.read(held_out.path(index), dtype="float32")
        middle = len(wave) // 2
        for half in (wave[:middle], wave[middle:]):
            # Half a second at least.
            half = np.resize(half, max(len(half), 8000))
            inputs = features(torch.from_numpy(half)[None])
            rows.append(encoder(inputs)[0, 0].numpy())
    rows = np.stack(rows).reshape(8, 2, -1)
    return label_free_threshold(rows)["label_free_threshold"]


def test_of_a_run_without_trials(corpus, ssl_model):
    """In the results, in the stock YAML, and in a decision."""
    found = tiny.results(ssl_model)
    value = found["label_free_threshold"]
    assert value == pytest.approx(by_hand(ssl_model, corpus), abs=1e-4)
    text = (ssl_model / "model" / "hyperparams.yaml").read_text()
    assert f"one speaker: {WHY}." in text
    line = next(x for x in text.splitlines() if x.startswith("verification_"))
    assert yaml.safe_load(line) == {"verification_threshold": value}
    assert threshold_of(None, found) == (value, WHY)
    manifest = Manifest.read(corpus.train_csv)
    pair = load_model(ssl_model).verify(manifest.path(0), manifest.path(1))
    assert (pair.threshold, pair.threshold_from) == (value, WHY)
    assert pair.same == (pair.score > value)


def test_labels_come_first():
    """A threshold of trials, then of an evaluation, and only then this one."""
    row = {"list": "O", "scoring": "cosine", "threshold": 0.2}
    results = {"label_free_threshold": 0.1}
    assert threshold_of(None, results) == (0.1, WHY)
    assert threshold_of(None, {**results, "evaluations": [row]})[0] == 0.2
    assert threshold_of(None, {**results, "threshold": 0.3})[0] == 0.3


def test_identify_raises_it(corpus, ssl_model, tmp_path):
    """For each name that a recording is compared with; a given one stays."""
    manifest = Manifest.read(corpus.train_csv)
    model = load_model(ssl_model)
    model.results = {
        "label_free_threshold": 0.1,
        "label_free_median": -0.1,
        "label_free_decile": 0.2,
    }
    found = []
    for number in range(3):
        model.enrol(str(number), manifest.path(number), tmp_path / "known")
        found.append(model.identify(manifest.path(9), tmp_path / "known"))
    assert found[0].threshold == pytest.approx(0.1)
    assert found[0].threshold_from == WHY
    for number, who in enumerate(found[1:], 2):
        wanted = raise_for_many(0.1, -0.1, 0.2, number)
        assert who.threshold == pytest.approx(wanted) and wanted > 0.15
        assert f"highest of {number} scores" in who.threshold_from
    given = model.identify(manifest.path(9), tmp_path / "known", threshold=0.1)
    assert (given.threshold, given.threshold_from) == (0.1, "given")


def test_the_start_of_a_run_is_its_initial_model(
    corpus, train, ssl_model, no_report, tmp_path
):
    """Before the first step, the metrics are those at the end of the other."""
    train.main(
        corpus.argv(tmp_path, number_of_epochs=1, initial_model=ssl_model)
    )
    (start,) = tiny.lines(tmp_path, "start")
    before = tiny.lines(ssl_model, "valid")[-1]
    for name in ("pseudo_eer", "lidar", "rankme", "mean_cosine"):
        assert start[name] == pytest.approx(before[name], rel=1e-4)
    assert (start["epoch"], start["step"]) == (0, 0)
    assert tiny.lines(ssl_model, "start")[0]["lidar"] != start["lidar"]
