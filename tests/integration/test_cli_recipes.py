"""``speechbrain-ssl train`` does what the recipe does."""

import json
import sys

import pytest
import tiny

#: A tiny run without folders of noises and rooms.
KEYS = """
    device=cpu
    number_of_epochs=1 warmup_epochs=0.5 batch_size=8 valid_utterances=8
    valid_seconds=0.4 global_seconds=0.4 channels=16 pooled_channels=48
""".split()


@pytest.mark.slow
def test_train_from_a_folder(corpus, tmp_path):
    folder = tmp_path / "run"
    argv = ["train", str(corpus.audio / "wav"), *KEYS]
    status, stderr = tiny.shell(
        [sys.executable, "-m", "speechbrain_ssl.cli.main", *argv]
        + [f"output_folder={folder}"]
    )
    assert status == 0, stderr[-3000:]
    assert (folder / "report.html").is_file()
    background = folder / "manifests" / "background"
    log = (folder / "log.txt").read_text()
    assert f"synthetic sounds serve, in {background};" in log
    assert (folder / "model" / "embedding_model.ckpt").is_file()
    results = json.loads((folder / "results.json").read_text())
    assert "recipes/UnlabeledFolder/SSL/train.py" in results["command"]
