"""``speechbrain-ssl train`` does what the recipe does."""

import json
import sys

import pytest
import tiny

#: A tiny run without a folder of noises.
KEYS = """
    noise_csv=null rirs_csv=null clean=1 reverb=0 noise=0 both=0 device=cpu
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
    assert (folder / "model" / "embedding_model.ckpt").is_file()
    results = json.loads((folder / "results.json").read_text())
    assert "recipes/UnlabeledFolder/SSL/train.py" in results["command"]
