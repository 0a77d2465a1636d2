"""What a run says of its epochs, on the console and elsewhere."""

import json
import sys

import numpy as np
import pytest
import speechbrain as sb

from speechbrain_ssl.brains import run_log
from speechbrain_ssl.brains.progress_line import (
    epoch_line,
    further_logger,
    name_bars,
)
from speechbrain_ssl.brains.run_log import RunLog
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.report.logbook import read_metrics

SCALARS = {"pseudo_eer": 12.5, "minutes": 3.0, "lidar": 9.0, "rankme": 5.0}


def test_the_first_and_the_last_epoch():
    first = epoch_line(1, 4, 5.0, 20.0, None, 2.0)
    assert "20.00 % (lower is better); 2.0 minutes, about 6.0 left" in first
    assert first.startswith("epoch 1 of 4: loss 5.0000")
    last = epoch_line(4, 4, 1.0, 10.0, 12.0, 8.0)
    assert last.endswith("10.00 %, was 12.00 (lower is better); 8.0 minutes")


def test_bars_have_names(monkeypatch):
    monkeypatch.setattr(sb.core, "tqdm", None)
    name_bars(sb.Stage.TRAIN, 3, 8)
    assert sb.core.tqdm([1], disable=True).desc == "epoch 3 of 8"
    name_bars(sb.Stage.VALID, 3, 8)
    bar = sb.core.tqdm([1], disable=True)
    assert bar.desc == "validation of epoch 3 of 8"


def test_a_resumed_run_knows_the_epoch_before(tmp_path, caplog):
    caplog.set_level("INFO")
    log = RunLog(tmp_path, epochs=3)
    log.write_epoch(1, 10, 2.0, 0.1, {**SCALARS, "pseudo_eer": 14.0})
    log.write_epoch(2, 20, 2.0, 0.1, {**SCALARS, "pseudo_eer": 13.0})
    again = RunLog(tmp_path, epochs=3)
    again.resume(None, 10)
    again.write_epoch(2, 20, 2.0, 0.1, SCALARS)
    assert "12.50 %, was 14.00" in caplog.messages[-1]


def test_a_run_that_starts_anew_has_one_start(tmp_path, caplog):
    """It was killed before its first checkpoint."""
    caplog.set_level("INFO")
    for _ in range(2):
        log = RunLog(tmp_path, epochs=3)
        log.resume(None, 0)
        log.write_start({"pseudo_eer": 40.0})
    log.write_epoch(1, 10, 2.0, 0.1, SCALARS)
    assert "12.50 %, was 40.00" in caplog.messages[-1]
    stages = [line["stage"] for line in read_metrics(log.logbook.path)]
    assert stages == ["start", "valid"]
    log.resume(None, 10)
    assert len(read_metrics(log.logbook.path)) == 2


def test_the_page_is_written_during_the_run(tmp_path, monkeypatch):
    log = RunLog(tmp_path, epochs=2)
    log.write_epoch(1, 10, 2.0, 0.1, SCALARS)
    page = tmp_path / "report.html"
    schedules = {"lr": np.ones(20)}
    log.write_page(schedules)
    assert not page.exists()  # the run has just begun
    monkeypatch.setattr(run_log, "PAGE_INTERVAL", 0)
    log.write_page(schedules)
    assert "Validation without labels" in page.read_text("utf-8")


def test_a_logger_that_is_not_installed(tmp_path, monkeypatch):
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match=f"pip install {name}"):
            RunLog(tmp_path, 1, name)
    with pytest.raises(ConfigError, match="got 'mlflow'"):
        further_logger("mlflow", tmp_path)


def test_another_logger_gets_every_epoch(tmp_path, monkeypatch):
    """SpeechBrain's own logger for text stands for one that is installed."""
    from speechbrain.utils import train_logger

    class Board(train_logger.FileTrainLogger):
        def __init__(self, save_dir):
            super().__init__(f"{save_dir}.txt")

    monkeypatch.setattr(train_logger, "TensorboardLogger", Board)
    log = RunLog(tmp_path, 2, "tensorboard")
    log.write_epoch(1, 10, 2.0, 0.1, SCALARS)
    said = (tmp_path / "tensorboard.txt").read_text()
    assert said == (tmp_path / "train_log.txt").read_text()
    assert "pseudo_eer: 12.50" in said
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["pseudo_eer"] == 12.5
