"""Whole runs with ``precision: auto``, on both kinds of processor."""

import pytest
import tiny
import torch

from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.precision import VARIABLE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]

#: Precision on the two kinds of processor, by value of the variable.
PRECISION = {"1": "bf16", "0": "fp32"}

AUTO = {"precision": "auto", "eval_precision": "auto"}


@pytest.fixture
def types(monkeypatch):
    """Record the dtypes that autocast uses in training steps."""
    seen = []
    original = SSLBrain.compute_objectives

    def look(brain, *args):
        on = torch.is_autocast_enabled("cpu")
        seen.append(torch.get_autocast_dtype("cpu") if on else torch.float32)
        return original(brain, *args)

    monkeypatch.setattr(SSLBrain, "compute_objectives", look)
    return seen


@pytest.mark.parametrize("began, other", ["10", "01"], ids=["1-0", "0-1"])
def test_a_run_moves_to_the_other_kind(
    corpus, train, tmp_path, monkeypatch, types, began, other
):
    """A run keeps the precision it started with, bit for bit."""
    monkeypatch.setenv(VARIABLE, began)
    argv = corpus.argv(tmp_path / "whole", number_of_epochs=2, **AUTO)
    train.main(argv)
    whole = tiny.results(tmp_path / "whole")["precision"]
    assert whole.startswith(f"{PRECISION[began]} (auto: this CPU ")
    argv = corpus.argv(
        tmp_path / "cut", number_of_epochs=2, ckpt_interval_steps=2, **AUTO
    )
    tiny.run_until(train, argv, 9)
    monkeypatch.setenv(VARIABLE, other)
    train.main(argv)
    wanted = f"{PRECISION[began]} (auto: the run began in {PRECISION[began]} ("
    found = tiny.results(tmp_path / "cut")
    assert found["precision"].startswith(wanted)
    assert found["eval_precision"].startswith(wanted)
    tiny.assert_identical(tmp_path / "whole", tmp_path / "cut")
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[PRECISION[began]]
    assert set(types) == {dtype}


def test_rounds_move_to_the_other_kind(
    corpus, rounds, ssl_model, tmp_path, monkeypatch
):
    """Embeddings must be of one precision, also if moved between stages."""
    monkeypatch.setenv(VARIABLE, "1")
    sizes = {"number_of_epochs": 1, "rounds": 1, **AUTO}
    argv = corpus.rounds_argv(tmp_path, ssl_model, **sizes)
    rounds.main([*argv, "--stop_after=embed"])
    monkeypatch.setenv(VARIABLE, "0")
    rounds.main(argv)
    found = tiny.results(tmp_path)
    assert found["precision"].startswith("bf16 (auto: the run began in bf16 (")


def test_fp16_on_a_cpu_is_refused_before_the_folder_is_claimed(
    corpus, train, tmp_path
):
    with pytest.raises(
        ConfigError, match="`precision` is fp16.*set it to auto"
    ):
        train.main(corpus.argv(tmp_path / "run", precision="fp16"))
    assert not (tmp_path / "run/save/settings.json").exists()
