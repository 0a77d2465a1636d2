"""A pre-trained front end in whole runs: rounds, resumption, two processes."""

import json
import math
import pathlib

import pandas as pd
import pytest
import tiny
import tiny_objectives
import torch

pytest.importorskip(
    "transformers", reason="transformers is not installed (extra hf)"
)
from pretrained_models import write_pretrained
from test_objectives_resume import check
from test_resnet_through_brain import ECAPA, PARTS
from tiny_objectives import STEPS

from speechbrain_ssl.brains.pseudo_label_brain import PseudoLabelBrain
from speechbrain_ssl.brains.training_brain import TrainingBrain
from speechbrain_ssl.publishing.export import load_encoder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]

MHFA = """\
/hparams/encoders/pretrained_mhfa.yaml
    source: {source}
    heads: 2
    compression: 4
    embedding_size: 32
    lr_ratio: 0.1
    layer_decay: 0.5
    {more}
"""
FEATURES = "features: !ref <features_block[logmel]>"


@pytest.fixture
def configure(corpus, tmp_path):
    """Return a writer of a configuration of SimCLR with a small WavLM."""
    source = write_pretrained("wavlm", tmp_path / "wavlm")

    def configure(more):
        path = tiny_objectives.configuration(corpus, "simclr")
        text = path.read_text()
        assert text.count(ECAPA) == text.count(FEATURES) == 1
        text = text.replace(ECAPA, MHFA.format(source=source, more=more))
        text = text.replace("logmel80.yaml", "waveform.yaml")
        text = text.replace("[logmel]>", "[waveform]>")
        path = path.with_name("simclr_wavlm.yaml")
        path.write_text(text)
        return path

    return configure


def moved(run):
    """Return the weights that changed between the two epochs of a run."""
    first, second = (
        tiny.tensors(torch.load(path, weights_only=True))
        for path in sorted((run / "save" / "weights").iterdir())
    )
    return {key for key in first if not torch.equal(first[key], second[key])}


@pytest.mark.parametrize("train_key", ["transformer", "lora", "nothing"])
def test_it_trains_and_goes_on(corpus, train, tmp_path, configure, train_key):
    """A run that ends in the second epoch resumes bit for bit, with dropout."""
    penalty = 0.01 if train_key == "transformer" else 0.0
    path = configure(f"train: {train_key}\n    penalty: {penalty}")
    lines = check(corpus, train, tmp_path, path, PARTS, 2, [5])
    assert all(math.isfinite(line["loss"]) for line in lines)
    changed = moved(tmp_path / "cut")
    front_end = {key for key in changed if "front_end." in key}
    assert any("attention.weight" in key for key in changed - front_end)
    if train_key == "transformer":
        assert all("front_end.model.encoder.layers." in k for k in front_end)
        assert any("layers.2.attention.q_proj" in k for k in front_end)
    elif train_key == "lora":
        # down and up of two projections in three layers
        assert len(front_end) == 12
        assert all(key.endswith((".down", ".up")) for key in front_end)
        encoder, _ = load_encoder(tmp_path / "cut" / "model")
        assert not any(k.endswith(".up") for k in encoder.state_dict())
    else:
        assert not front_end


def test_two_processes_are_one(corpus, train, tmp_path, configure):
    """Losses and weights are equal up to the order of additions."""
    path = configure("penalty: 0.0")
    # Adam's first steps depend on signs, and each process has its own dropout.
    text = path.read_text().replace("AdamW", "SGD")
    text = text.replace("betas: [0.9, 0.99]", "momentum: 0.9")
    path.write_text(text)
    config = tmp_path / "wavlm" / "config.json"
    about = json.loads(config.read_text())
    dropout = {key: 0.0 for key in about if key.endswith("dropout")}
    assert len(dropout) > 3
    config.write_text(json.dumps({**about, **dropout}))
    options = {"number_of_epochs": 1, "lr": 0.002}
    one, two = tmp_path / "one", tmp_path / "two"
    train.main(tiny_objectives.argv(corpus, path, one, **options))
    options |= {"batch_size": 8, "distributed_backend": "gloo"}
    status, stderr = tiny.torchrun(
        tiny.TRAIN, *tiny_objectives.argv(corpus, path, two, **options)
    )
    assert status == 0, stderr
    ours, theirs = tiny.lines(two), tiny.lines(one)
    assert len(ours) == len(theirs) == STEPS
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
    tiny.assert_close(*(tiny.final_tensors(each, PARTS) for each in (two, one)))


def test_rounds(corpus, ssl_model, tmp_path, monkeypatch):
    """The mini recipe: labels of an ECAPA; frozen, all weights, layers."""
    gradients, after_step = {}, PseudoLabelBrain.after_step

    def noted(brain):
        parameters = brain.encoder.front_end.parameters()
        folder = pathlib.Path(brain.hparams.output_folder).name
        gradients.setdefault(folder, set()).update(
            p.requires_grad for p in parameters
        )
        after_step(brain)

    monkeypatch.setattr(PseudoLabelBrain, "after_step", noted)
    recipe = tiny.ROOT / "recipes/UnlabeledFolder/PseudoLabels"
    argv = [
        str(recipe / "hparams/wavlm_mhfa_mini.yaml"),
        f"--data_folder={corpus.audio}",
        "--prepare=null",
        f"--train_manifest={corpus.train_csv}",
        f"--noise_csv={corpus.noise_csv}",
        f"--rirs_csv={corpus.rirs_csv}",
        f"--initial_model={ssl_model}",
        f"--output_folder={tmp_path / 'run'}",
        "--final_stage=[{front_end_train: everything, number_of_epochs: 2}, "
        "{front_end_train: transformer, margin: 0.5, number_of_epochs: 1}]",
        *"""--front_end_train=nothing --rounds=2 --clusters=4 --device=cpu
        --number_of_epochs=2 --gate_epoch=2 --label_correction_epoch=2
        --batch_size=8 --valid_utterances=8 --valid_seconds=0.4
        --global_seconds=0.4 --min_cluster_size=2 --noprogressbar""".split(),
    ]
    train = tiny.load_train(recipe / "train.py")
    train.main(argv)
    stages = pd.DataFrame(
        json.loads((tmp_path / "run/rounds.json").read_text())
    )
    assert stages["stage"].tolist() == [
        *("embed", "cluster", "train") * 2,
        *("fine_tune", "fine_tune"),
    ]
    # Frozen weights are not made to collect gradients, either.
    assert gradients == {
        "round_1": {False},
        "round_2": {False},
        "fine_tuning_2": {True},
        "fine_tuning_2_2": {True, False},
    }
    states = [
        load_encoder(tmp_path / "run" / name)[0].state_dict()
        for name in ("round_1", "round_2", "fine_tuning_2", "fine_tuning_2_2")
    ]
    equal = [
        {key for key in states[0] if torch.equal(states[0][key], other[key])}
        for other in states[1:]
    ]
    front_end = {k for k in states[0] if k.startswith("front_end.")}
    # Frozen: that of both rounds is the one they began with.
    assert equal[0] == front_end
    assert len(front_end - equal[1]) > len(front_end) / 2
    # The layers alone: what is before them stays as the stage before left it.
    moved = {
        k for k in front_end if not torch.equal(states[2][k], states[3][k])
    }
    assert moved and all(".encoder.layers." in key for key in moved)
    # Ended in the second epoch of a final stage, which has dropout, and resumed.
    argv[7] = f"--output_folder={tmp_path / 'cut'}"
    fit_batch_end = TrainingBrain.on_fit_batch_end

    def cut(brain, *args):
        fit_batch_end(brain, *args)
        folder = pathlib.Path(brain.hparams.output_folder).name
        if (folder, brain.epoch) == ("fine_tuning_2", 2):
            raise tiny.Cut

    with monkeypatch.context() as patch, pytest.raises(tiny.Cut):
        patch.setattr(TrainingBrain, "on_fit_batch_end", cut)
        train.main(argv)
    assert list((tmp_path / "cut/fine_tuning_2/save/checkpoints").glob("C*"))
    train.main(argv)
    for name in ("round_1", "round_2", "fine_tuning_2", "fine_tuning_2_2"):
        folders = (tmp_path / run / name for run in ("run", "cut"))
        tiny.assert_identical(*folders, tiny.LABEL_PARTS)


def test_positives_from_other_utterances(corpus, train, tmp_path):
    """The mini recipe of SSPS: its second epoch replaces positives."""
    recipe = tiny.ROOT / "recipes/UnlabeledFolder/SSL/hparams"
    argv = [
        str(recipe / "simclr_ssps_wavlm_mini.yaml"),
        f"--data_folder={corpus.audio}",
        "--prepare=null",
        f"--train_manifest={corpus.train_csv}",
        f"--noise_csv={corpus.noise_csv}",
        f"--rirs_csv={corpus.rirs_csv}",
        f"--output_folder={tmp_path}",
        *"""--clusters=4 --positive_queue=32 --ssps_start_epoch=2 --device=cpu
        --number_of_epochs=2 --warmup_epochs=0.5 --reference_seconds=0.6
        --batch_size=8 --valid_utterances=8 --valid_seconds=0.4
        --global_seconds=0.4 --noprogressbar""".split(),
    ]
    train.main(argv)
    first, *_, last = tiny.lines(tmp_path)
    assert "coverage" not in first and last["coverage"] > 0
    assert math.isfinite(last["loss"])
