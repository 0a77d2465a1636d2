"""``speechbrain-ssl train`` does what the recipe does."""

import json
import re
import subprocess
import sys

import pytest
import tiny

#: A tiny run without folders of noises and rooms.
KEYS = """
    device=cpu
    number_of_epochs=1 warmup_epochs=0.5 batch_size=8 valid_utterances=8
    valid_seconds=0.4 global_seconds=0.4 channels=16 pooled_channels=48
""".split()


def check_outputs(folder):
    """Assert that the documentation has every file, and the page its tiles."""
    page = (tiny.ROOT / "docs" / "outputs.md").read_text()
    places = [*folder.iterdir(), *(folder / "manifests").iterdir()]
    assert {"env.log", "prepare.json"} < {path.name for path in places}
    for path in places:
        assert re.search(f"[`/]{re.escape(path.name)}[`/]", page), path
    report = (folder / "report.html").read_text()
    for name in ("Pseudo-EER", "Audio used", "Files rejected", "Wall time"):
        assert f'<div class="tile"><span>{name}</span>' in report
    assert "before training" in report and "Held-out utterances" in report


@pytest.mark.slow
def test_train_from_a_folder(corpus, tmp_path):
    folder = tmp_path / "run"
    audio = corpus.audio / "wav"
    command = [sys.executable, "-m", "speechbrain_ssl.cli.main"]
    done = subprocess.run(
        [*command, "train", audio, *KEYS, f"output_folder={folder}"],
        env=tiny.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "speechbrain." not in done.stdout  # only our own lines
    assert "\nepoch 1 of 1: loss " in done.stdout
    assert (folder / "report.html").is_file()
    background = folder / "manifests" / "background"
    log = (folder / "log.txt").read_text()
    assert f"synthetic sounds serve, in {background};" in log
    assert (folder / "model" / "embedding_model.ckpt").is_file()
    check_outputs(folder)
    results = json.loads((folder / "results.json").read_text())
    assert "recipes/UnlabeledFolder/SSL/train.py" in results["command"]
    # The first of the commands that it names works as it stands.
    first = done.stdout.split("What next:\n")[1].splitlines()[0].split()
    assert first[:2] == ["speechbrain-ssl", "cluster"]
    status, stderr = tiny.shell([*command, *first[1:]])
    assert status == 0, stderr[-3000:]
    assert (folder / "speakers.csv").is_file()
    assert (folder / "speakers.html").is_file()
