"""A stage that makes the model worse is not kept.

Training is replaced: it leaves the encoder as it was, or ruins it. The models
are exported, embedded and compared as in any run.
"""

import json
import os
import signal

import numpy as np
import pytest
import tiny
import torch

from speechbrain_ssl.brains import rounds as module
from speechbrain_ssl.brains.pseudo_label_brain import PseudoLabelBrain
from speechbrain_ssl.data import loaders
from speechbrain_ssl.report.rounds import build_rounds_report

pytestmark = pytest.mark.usefixtures("no_report")

#: With noise the tiny encoder is at chance from the start.
CLEAN = "{clean: 1.0, reverb: 0.0, noise: 0.0}"
FINE_TUNING = "{margin: 0.3, valid_utterances: 4}"


@pytest.fixture
def ruin(monkeypatch):
    """Return a set of (round, margin) whose training ruins the encoder."""
    ruined = set()

    @torch.no_grad()
    def fit(brain, *_):
        brain.on_fit_start()
        brain.epoch = 1
        if (brain.hparams.round, brain.hparams.margin) in ruined:
            # Every utterance gets the same embedding.
            brain.encoder.fc.conv.weight.zero_()
            brain.encoder.fc.conv.bias.fill_(1.0)
        brain.recent_weights.save(brain.averaged_modules(), 1)

    def trusted(brain):
        return np.arange(len(brain.labels)) % 4 > 0

    monkeypatch.setattr(PseudoLabelBrain, "fit", fit)
    monkeypatch.setattr(PseudoLabelBrain, "trusted", trusted)
    return ruined


@pytest.fixture
def run(corpus, rounds, ssl_model, tmp_path, monkeypatch):
    """Return a function that runs rounds and returns the results."""
    # More than a user would hold out, so that a verdict is possible.
    monkeypatch.setattr(loaders, "MOST_HELD_OUT", 0.8)

    def run(**options):
        argv = corpus.rounds_argv(
            tmp_path / "run",
            ssl_model,
            valid_utterances=40,
            augmentation_block=CLEAN,
            clusters=3,
            min_cluster_size=1,
            **options,
        )
        rounds.main(argv)
        return tiny.results(tmp_path / "run")

    run.folder = tmp_path / "run"
    return run


def exported(folder):
    """Return the bytes of an exported model."""
    return {p.name: p.read_bytes() for p in (folder / "model").iterdir()}


def done(folder):
    """Return rounds and stages, and the verdict of each training."""
    records = json.loads((folder / "rounds.json").read_text())
    return [
        (r["round"], r["stage"], r["verdict"])
        for r in records
        if "verdict" in r
    ]


def test_a_harmful_first_round(run, ruin, ssl_model, monkeypatch):
    """The initial model stays, also if the run is killed before its end."""
    ruin.add((1, 0.1))
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(
            module.Rounds,
            "_finish",
            lambda *_: os.kill(os.getpid(), signal.SIGKILL),
        )
        try:
            run(final_stage=FINE_TUNING)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert done(run.folder) == [(1, "train", "worse")]
    assert not (run.folder / "model").exists()
    # Nothing is trained again, and nothing starts from the rejected round.
    monkeypatch.setattr(module.Stages, "train", None)
    monkeypatch.setattr(module.Stages, "fine_tune", None)
    found = run(final_stage=FINE_TUNING)
    assert exported(run.folder) == exported(ssl_model)
    assert found["model_from"] == "the initial model"
    assert found["why"].startswith("training of round 1: worse: pseudo-EER 50")
    assert found["stopped"] == "round 1 has made the model worse"
    # Its results, such as its threshold, are its own.
    initial = tiny.results(ssl_model)
    assert found["label_free_threshold"] == initial["label_free_threshold"]
    assert found["command"] == initial["command"]
    (record,) = (r for r in found["stages"] if r["stage"] == "train")
    assert record["gain_high"] < 0 < record["start_pseudo_eer"] < 45
    assert record["gate_kept"] == pytest.approx(0.75, abs=0.05)
    check_page(run.folder, found, record)


def check_page(folder, found, record):
    """It has verdict, both figures, sizes of clusters and the kept share."""
    (sizes,) = (r for r in found["stages"] if r["stage"] == "cluster")
    text = build_rounds_report(folder).read_text(encoding="utf-8")
    sizes = [sizes[f"size_{name}"] for name in ("min", "median", "max")]
    for wanted in (
        f"<td>{record['start_pseudo_eer']:.1f}, 50.0</td>",
        "<td>worse</td>",
        f"<td>{sizes[0]:g}, {sizes[1]:g}, {sizes[2]:g}</td>",
        f"<td>{100 * record['gate_kept']:.0f} %</td>",
        "the initial model",
        "Pseudo-EER, round 1</span><b>50.00 %</b><span>was "
        f"{record['start_pseudo_eer']:.2f} %: worse<",
    ):
        assert wanted in text, wanted


def test_a_harmful_second_round(run, ruin):
    """The first stays, is fine-tuned, and the third is not tried."""
    ruin.add((2, 0.1))
    found = run(rounds=3, final_stage=FINE_TUNING)
    assert done(run.folder) == [
        (1, "train", "not distinguishable"),
        (2, "train", "worse"),
        (1, "fine_tune", "not distinguishable"),
    ]
    assert found["model_from"] == "fine_tuning_1"
    assert exported(run.folder) == exported(run.folder / "fine_tuning_1")
    assert found["rounds"] == 2
    # A second call with more rounds changes nothing.
    assert run(rounds=4, final_stage=FINE_TUNING) == found


def test_harmful_fine_tuning(run, ruin):
    """The round that it started from stays; no further stage is tried."""
    ruin.add((1, 0.3))
    found = run(rounds=1, final_stage=f"[{FINE_TUNING}, {FINE_TUNING}]")
    assert done(run.folder)[-1] == (1, "fine_tune", "worse")
    assert found["model_from"] == "round_1"
    assert found["why"].startswith("fine-tuning of round 1: worse")
    assert exported(run.folder) == exported(run.folder / "round_1")
    assert exported(run.folder / "fine_tuning_1") != exported(run.folder)
