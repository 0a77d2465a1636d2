"""A run starts with the encoder, heads and teacher of another run."""

import shutil

import pytest
import tiny
import tiny_objectives
import torch
from tiny_objectives import CASES

from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]


@pytest.fixture
def begun(monkeypatch):
    """Return the state of the parts at the start of each epoch."""
    seen = []
    original = SSLBrain.before_epoch

    def before_epoch(brain, epoch):
        parts = {"encoder": brain.encoder, "objective": brain.objective}
        if brain.teacher is not None:
            parts["teacher"] = brain.teacher
        seen.append(
            {
                f"{part}.{name}": tensor.clone()
                for part, module in parts.items()
                for name, tensor in module.state_dict().items()
                if torch.is_tensor(tensor)
            }
        )
        return original(brain, epoch)

    monkeypatch.setattr(SSLBrain, "before_epoch", before_epoch)
    return seen


def saved(output, parts):
    """Return the same parts from the last checkpoint of a run."""
    checkpoint = tiny.newest_checkpoint(output).path
    return {
        f"{part}.{name}": tensor
        for part in parts
        for name, tensor in torch.load(
            checkpoint / f"{part}.ckpt", weights_only=True
        ).items()
        if torch.is_tensor(tensor)
    }


@pytest.mark.parametrize("name", ["dino", "moco", "simclr"])
def test_ssps_goes_on_from_its_baseline(corpus, train, tmp_path, begun, name):
    """Heads, queue, centre and teacher are equal bit for bit.

    The optimiser is new.
    """
    baseline, output = tmp_path / "baseline", tmp_path / "ssps"
    path = tiny_objectives.configuration(corpus, name)
    train.main(tiny_objectives.argv(corpus, path, baseline))
    path = tiny_objectives.configuration(corpus, name, "ssps")
    arguments = tiny_objectives.argv(
        corpus, path, output, initial_checkpoint=baseline
    )
    epochs = len(begun)
    train.main(arguments)
    parts = [part for part in CASES[name].parts if part != "optimizer"]
    wanted = saved(baseline, parts)
    assert set(begun[epochs]) == set(wanted)
    for key, tensor in wanted.items():
        assert torch.equal(begun[epochs][key], tensor), key
    # A run that was only initialised is not an interrupted run.
    lines = tiny.lines(output)
    assert lines[0]["step"] == 1
    assert lines[-1]["coverage"] > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"initial_checkpoint": "nowhere"}, "no checkpoint in .*nowhere"),
        ({"other": "simclr"}, "trained with SimCLR.*this run uses DINO"),
        ({"initial_model": "x"}, "set `initial_model` to null"),
        ({"prototypes": 24}, "the objective of .* does not fit"),
    ],
)
def test_refused_before_the_first_step(
    corpus, train, tmp_path, options, message, monkeypatch
):
    options = dict(options)
    baseline, output = tmp_path / "baseline", tmp_path / "run"
    path = tiny_objectives.configuration(corpus, options.pop("other", "dino"))
    if "initial_checkpoint" not in options:
        train.main(tiny_objectives.argv(corpus, path, baseline))
        options["initial_checkpoint"] = baseline
    if "initial_model" in options:
        options["initial_model"] = baseline
    if "prototypes" in options:
        values = {
            **CASES["dino"].values,
            "prototypes": options.pop("prototypes"),
        }
        case = tiny_objectives.Case(
            "dino", values, "both", CASES["dino"].schedules
        )
        monkeypatch.setitem(CASES, "dino", case)
    path = tiny_objectives.configuration(corpus, "dino")
    with pytest.raises(ConfigError, match=message):
        train.main(tiny_objectives.argv(corpus, path, output, **options))
    assert not (output / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["moco", "byol", "dino", "sdpn"])
def test_which_encoder_is_exported(corpus, train, tmp_path, name):
    """DINO and SDPN export the teacher, MoCo and BYOL the student."""
    path = tiny_objectives.configuration(corpus, name)
    train.main(tiny_objectives.argv(corpus, path, tmp_path, average_last=1))
    exported = torch.load(
        tmp_path / "model" / "embedding_model.ckpt", weights_only=True
    )
    state = saved(tmp_path, ["encoder", "teacher"])
    counts = "teacher.encoder" if name in ("dino", "sdpn") else "encoder"
    other = "encoder" if name in ("dino", "sdpn") else "teacher.encoder"
    trained = [key for key in exported if key.endswith("conv.weight")]
    mine = [key for key in state if key.startswith(f"{counts}.")]
    assert trained and mine
    values = {exported[key].double().sum().item() for key in trained}
    found = {state[key].double().sum().item() for key in mine}
    theirs = {
        tensor.double().sum().item()
        for key, tensor in state.items()
        if key.startswith(f"{other}.")
    }
    assert values <= found
    assert not values & theirs


class Killed(Exception):
    """Raised to end a run after its last checkpoint."""


@pytest.mark.parametrize("key", ["initial_checkpoint", "initial_model"])
def test_goes_on_without_the_run_it_began_with(
    corpus, train, tmp_path, key, monkeypatch
):
    """The run resumes from its own checkpoint, and kept the initial encoder."""
    baseline, output = tmp_path / "baseline", tmp_path / "run"
    path = tiny_objectives.configuration(corpus, "simclr")
    options = {
        "trials": corpus.trials,
        "trials_folder": corpus.audio / "wav",
        "average_last": 1,
    }
    train.main(tiny_objectives.argv(corpus, path, baseline, **options))
    wanted = tiny.results(baseline)["eer"]
    options[key] = baseline
    arguments = tiny_objectives.argv(corpus, path, output, **options)

    def kill(brain):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SSLBrain, "finish", kill)
        with pytest.raises(Killed):
            train.main(arguments)
    shutil.rmtree(baseline)
    train.main(arguments)
    assert tiny.results(output)["eer_initial"] == pytest.approx(wanted)
