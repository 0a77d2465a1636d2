"""A model and recordings for the command line; runs a command in-process."""

import json

import numpy as np
import pytest
import soundfile
import torch
from voices import RATE, voice

from speechbrain_ssl.cli.main import main
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.publishing.export import export_encoder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An exported model that nothing was trained for."""
    torch.manual_seed(0)
    encoder = FastECAPA(80, channels=[16, 16, 16, 16, 48], lin_neurons=24)
    features = LogMel()
    for step in range(30):
        waves = np.stack([voice(s, 50 + step, 0.6) for s in range(8)])
        encoder(features(torch.from_numpy(waves).float()))
    folder = tmp_path_factory.mktemp("models") / "run"
    export_encoder(folder / "model", encoder.eval(), features)
    return folder


@pytest.fixture
def audio(tmp_path):
    """Three speakers, four recordings each, and some that are no use."""
    folder = tmp_path / "audio"
    for speaker in range(3):
        (folder / f"s{speaker}").mkdir(parents=True)
        for take in range(4):
            soundfile.write(
                folder / f"s{speaker}" / f"{take}.wav",
                voice(speaker, take),
                RATE,
            )
    return folder


@pytest.fixture
def bad_audio(audio):
    """A folder with files that cannot be used among those that can."""
    (audio / "broken.wav").write_bytes(b"RIFF, and no more")
    (audio / "empty.wav").touch()
    soundfile.write(audio / "silent.wav", np.zeros(RATE), RATE)
    return audio


@pytest.fixture
def calibrated(model, tmp_path):
    """The same model with a calibration and an evaluation."""
    folder = tmp_path / "calibrated"
    folder.mkdir()
    for path in (model / "model").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "calibration.json").write_text(
        '{"scale": 20.0, "offset": -12.0, "trials": "my_trials"}'
    )
    return folder


@pytest.fixture
def command(capfd):
    """Runs a command; returns its code, stdout and stderr."""

    def run(*argv):
        code = main([str(argument) for argument in argv])
        output = capfd.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def command_json(command):
    """The same with ``--json``; stdout as an object."""

    def run(*argv):
        code, out, err = command(*argv, "--json")
        # Any console can show it.
        assert len(out.splitlines()) == 1 and out.isascii()
        return code, json.loads(out), err

    return run
