"""The commands of docs/reproduce.md run, one after the other, at a tiny size.

They are taken from the page and call the recipes' own configurations. Only
sizes, folders and the device are changed.
"""

import dataclasses
import json
import math
import shutil

import pandas as pd
import pytest
import reproduce_page as page
import tiny

from speechbrain_ssl.clustering.agglomerative import merge_by_scores
from speechbrain_ssl.config_base import merge, read_plain
from speechbrain_ssl.pseudo_labels.plda_clusters import PLDAClusters

pytestmark = pytest.mark.slow

#: Sizes of training without labels and of rounds. A configuration gets those
#: keys that it has. A batch is half of the 48 training utterances.
TRAINING = {
    "number_of_epochs": 2,
    "warmup_epochs": 0.5,
    "batch_size": 24,
    "valid_utterances": 8,
    "valid_seconds": 0.4,
    "global_seconds": 0.5,
    "local_seconds": 0.3,
    # Heads, prototypes and queues
    "prototypes": 32,
    "hidden": 16,
    "output_size": 8,
    "wide": 32,
    "moco_queue": 40,
    "swav_queue": 48,
    # Positives from other utterances
    "cluster_start_epoch": 2,
    "ssps_start_epoch": 2,
    "positive_queue": 48,
    "reference_seconds": 0.5,
    # Rounds
    "clusters": 4,
    "centroids": 12,
    "min_cluster_size": 2,
    "posterior": 0,
    "gate_epoch": 2,
    # Enough for the large-margin stage.
    "least_kept": 0.9,
    "label_correction_epoch": 2,
    "frozen_encoder_epochs": 1,
}

EVALUATION = {
    "bootstrap_replicates": 50,
    "channels": 16,
    "pooled_channels": 48,
    "mean_utterances": 20,
    "top": 20,
    "crop_seconds": 0.4,
    "clusters": 4,
    "smallest_cluster": 2,
}

#: Dimensions of PLDA, in rounds and in evaluation.
LDA = 3

EMOTION = {
    "bootstrap_replicates": 50,
    "channels": 16,
    "pooled_channels": 48,
    "affine_epochs": 1,
    "epochs": 1,
    "batch_size": 8,
    "chunk_seconds": 0.4,
    "folds_count": 2,
}

EMOTIONS = ("angry", "disgust", "happy", "neutral", "sad")

#: The same for parts of building blocks.
BLOCKS = {
    "dino": "{hidden: 16, bottleneck: 8}",
    "sdpn": "{hidden: 16, bottleneck: 8}",
    "final_stage": "{number_of_epochs: 2, global_seconds: 0.6, batch_size: 8}",
}


def encoder_flags(merged):
    """Return flags that make the encoder small, but not equal for all."""
    block = merged.plain()["encoder_block"]
    given = block if isinstance(block, dict) else {"!": block}
    path = given["!"].removeprefix("!").removeprefix("include:").strip()
    known = read_plain(merged.folder / path)
    channels = known["encoder"]["channels"]
    if isinstance(channels, list):
        small = [count // 32 for count in channels]
        parts = f"channels: {small}, attention_channels: 8, se_channels: 8"
        return {"encoder_block": f"{{encoder: {{{parts}}}}}"}
    if "channels" in merged.plain():
        return {"channels": merged.plain()["channels"] // 4}
    count = given.get("channels", known["channels"])
    return {"encoder_block": f"{{channels: {count // 4}}}"}


def labelled(corpus, path):
    """Write a manifest of all speakers with emotions, sessions, partitions."""
    table = []
    for number, wav in enumerate(sorted(corpus.audio.glob("wav/*/*/*.wav"))):
        speaker = wav.parts[-3]
        turn = int(speaker[-2:])
        table.append(
            {
                "ID": "-".join(wav.parts[-3:]),
                "duration": (wav.stat().st_size - 44) / 32000,
                "wav": wav,
                "spk_id": speaker,
                "emotion": EMOTIONS[number % len(EMOTIONS)],
                "session": turn % 5,
                "partition": ("Train", "Development", "Test1")[turn % 3],
            }
        )
    pd.DataFrame(table).to_csv(path, index=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, corpus):
    """Return a folder with the recipes' folders, and manifests in it."""
    root = tmp_path_factory.mktemp("checkout")
    manifests = root / "manifests"
    manifests.mkdir()
    shutil.copy(corpus.train_csv, manifests / "train.csv")
    for name in ("noise", "music", "speech"):
        shutil.copy(corpus.noise_csv, manifests / f"{name}.csv")
    shutil.copy(corpus.rirs_csv, manifests / "rirs.csv")
    labelled(corpus, manifests / "labelled.csv")
    return root


@pytest.fixture
def mergings(monkeypatch):
    """Set thresholds that leave 4 clusters; return (round, key) of each call.

    The scores of a tiny encoder have another scale than those of a real one.
    The threshold of the other round stays, and would leave another number.
    """
    seen, merge_down = [], PLDAClusters._merge

    def parted(self, key, scores, count):
        _, merges = merge_by_scores(scores, count, math.inf)
        thresholds = list(getattr(self, key))
        assert len(thresholds) == 2
        thresholds[self.round - 1] = float(merges[-4] + merges[-3]) / 2
        method = dataclasses.replace(self, **{key: thresholds})
        labels = merge_down(method, key, scores, count)
        assert labels.max() == 3
        seen.append((self.round, key))
        return labels

    monkeypatch.setattr(PLDAClusters, "_merge", parted)
    return seen


@pytest.fixture
def call(checkout, corpus, no_report, monkeypatch):
    """Return ``call(command)``, which runs it in the copy of its folder."""
    scripts = {}

    def call(command):
        merged = merge(page.ROOT / command.yaml)
        keys = merged.plain().keys()
        manifests = checkout / "manifests"
        sizes = TRAINING
        if command.script == "evaluate.py":
            sizes = EVALUATION
        elif "Emotion" in command.folder:
            sizes = EMOTION
        # The method of Cho et al. has thresholds for the second round.
        rounds = 2 if "plda_thresholds" in keys else 1
        sizes = {**sizes, "lda": LDA, "rounds": rounds}
        flags = {k: v for k, v in sizes.items() if k in keys}
        places = {
            "prepare": "null",
            "manifest_folder": manifests,
            "save_folder": manifests,
            "noise_manifests": manifests,
            "manifest": manifests / "labelled.csv",
            "trials_manifest": "null",
            "trials_folder": corpus.audio / "wav",
        }
        if command.script == "evaluate.py":
            flags["trials"] = corpus.trials
        elif "Emotion" not in command.folder:
            del places["trials_folder"]
            flags |= encoder_flags(merged)
            flags |= {k: v for k, v in BLOCKS.items() if merged.plain().get(k)}
        flags |= {k: v for k, v in places.items() if k in keys}
        flags |= {"data_folder": corpus.audio, "num_workers": 0}
        argv = [
            f"--{key}={value}" for key, value in (command.flags | flags).items()
        ]
        source = page.ROOT / command.folder / command.script
        if source not in scripts:
            scripts[source] = tiny.load_train(source)
            if hasattr(scripts[source], "build_report"):
                monkeypatch.setattr(
                    scripts[source], "build_report", lambda *_, **__: None
                )
        folder = checkout / command.folder
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        yaml = str(page.ROOT / command.yaml)
        scripts[source].main([yaml, *argv, "--device=cpu", "--noprogressbar"])

    return call


@pytest.mark.parametrize("title", page.chains())
def test_the_commands_of_a_section_run(title, call, checkout, mergings):
    for command in page.chains()[title]:
        if command.yaml is None:
            continue
        call(command)
        if "stop_after" in command.flags:
            continue
        if command.output is not None:
            model = checkout / command.output / "model"
            assert (model / "embedding_model.ckpt").is_file(), command
        elif command.script == "evaluate.py":
            evaluated = command.flags["model"].split("/")[-2]
            (path,) = (checkout / command.folder).glob(
                f"results/**/{evaluated}/**/results.json"
            )
            record = json.loads(path.read_text())
            rows = {
                found["scoring"].replace("_", " ")
                for found in record["evaluations"]
            }
            assert command.rows and rows >= set(command.rows)
    if title.startswith("DINO, rounds"):
        assert mergings == [
            (round, f"{kind}_threshold")
            for round in (1, 2)
            for kind in ("cosine", "plda")
        ]
