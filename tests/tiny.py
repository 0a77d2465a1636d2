"""A corpus and a configuration so small that a run takes seconds."""

import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import pandas as pd
import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.data.manifest import Manifest, write_manifest
from speechbrain_ssl.minivox.corpus import write_corpus
from speechbrain_ssl.report.logbook import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRAIN = ROOT / "recipes" / "VoxCeleb" / "SSL" / "train.py"
ROUNDS = ROOT / "recipes" / "VoxCeleb" / "PseudoLabels" / "train.py"

#: 4 speakers x 2 videos x 7 utterances; 8 are held out, 48 are trained on.
SIZES = {
    "num_train_speakers": 4,
    "num_test_speakers": 8,
    "videos_per_speaker": 2,
    "utterances_per_video": 7,
    "seconds": (1.0, 1.4),
    "num_noises": 2,
    "num_rooms": 2,
    "jobs": 1,
    "progress": False,
}

#: With a batch of 8 an epoch has 6 steps.
STEPS = 6

_YAML = """\
seed: 7
__set_seed: !apply:speechbrain.utils.seed_everything [!ref <seed>]
output_folder: !PLACEHOLDER
data_folder: null
train_manifest: !PLACEHOLDER
prepare: null
trials: null
trials_folder: null
trials_speaker_component: 0
trials_every: 1
expected_pseudo_eer: null

number_of_epochs: 2
batch_size: 8
num_workers: 0
precision: fp32
eval_precision: fp32
lr: 0.01
lr_reference_batch: 8
clip_per_tensor: 3.0
freeze_last_layer_epochs: 1
average_last: 2
collapse_alarm: !new:speechbrain_ssl.brains.collapse.CollapseAlarm
on_divergence: stop
log_every: 1
train_logger: null
valid_utterances: 8
valid_seconds: 0.4
global_pairs: True
noise_csv: null
rirs_csv: null
p_clean: 0.0
p_reverb: 0.5
p_noise: 0.5

encoder_block: !include:{root}/hparams/encoders/ecapa_mini.yaml
    channels: 16
    pooled_channels: 48
encoder: !ref <encoder_block[encoder]>
initial_model: null
initial_checkpoint: null
features_block: !include:{root}/hparams/features/logmel80.yaml
features: !ref <features_block[logmel]>
augmentation_block: !include:{root}/hparams/augmentation/noise_and_rooms.yaml
    noise_csv: !ref <noise_csv>
    rirs_csv: !ref <rirs_csv>
    clean: !ref <p_clean>
    reverb: !ref <p_reverb>
    noise: !ref <p_noise>
augmentation: !ref <augmentation_block[augmentation]>
prototypes: 32
positives: null
objective: !new:speechbrain_ssl.objectives.dino.DINO
    head: !new:speechbrain_ssl.objectives.dino_head.DINOHead
        embedding_size: 192
        prototypes: !ref <prototypes>
        hidden: 32
        bottleneck: 16
    global_pairs: !ref <global_pairs>
crops: !new:speechbrain_ssl.data.crops.CropPlan
    global_seconds: 0.5
    local_crops: 2
    local_seconds: 0.3
optimizer: !name:torch.optim.AdamW
    betas: [0.9, 0.99]
schedules:
    lr: !new:speechbrain_ssl.schedules.WarmupCosine
        peak: !ref <lr>
        end: 0.001
        warmup_epochs: 0.5
    weight_decay: !new:speechbrain_ssl.schedules.Constant
        value: 0.01
    momentum: !new:speechbrain_ssl.schedules.WarmupCosine
        peak: 0.9
        end: 1.0
    teacher_temperature: !new:speechbrain_ssl.schedules.Constant
        value: 0.04
    cosine_weight: !new:speechbrain_ssl.schedules.Constant
        value: 0.1
epoch_counter: !new:speechbrain.utils.epoch_loop.EpochCounter
    limit: !ref <number_of_epochs>
checkpointer: !new:speechbrain_ssl.brains.checkpointing.AtomicCheckpointer
    checkpoints_dir: !ref <output_folder>/save/checkpoints
"""

_ROUNDS_YAML = """\
seed: 7
__set_seed: !apply:speechbrain.utils.seed_everything [!ref <seed>]
output_folder: !PLACEHOLDER
stage_folder: !ref <output_folder>
data_folder: null
train_manifest: !PLACEHOLDER
prepare: null
trials: null
trials_folder: null
trials_speaker_component: 0
trials_every: 0

initial_model: null
rounds: 2
round: 1
start_from: initial
stop_after: null
stop_agreement: 1.1
stop_gain: -2.0
embed_batch_seconds: 6
embed_most_seconds: 60
shard_utterances: 20
other_models: []
clusters: 7
labels_from: !new:speechbrain_ssl.clustering.methods.KMeansClusters
    clusters: !ref <clusters>
min_cluster_size: 3
max_cluster_size: null
silhouette_sample: 40
monitor_labels: null
monitor_column: spk_id
# An empty mapping: HyperPyYAML cannot replace null by a mapping.
final_stage: {{}}

number_of_epochs: 3
batch_size: 8
num_workers: 0
precision: fp32
eval_precision: fp32
lr: 0.003
lr_reference_batch: 8
decay_vectors: True
clip_per_tensor: 3.0
frozen_encoder_epochs: 1
average_last: 2
log_every: 1
train_logger: null
valid_utterances: 8
valid_seconds: 0.4
global_seconds: 0.5
noise_csv: null
rirs_csv: null
margin: 0.1
margin_epochs: 1
classes: 1
initial_classifier: null
centers_from_embeddings: False
gate: 3.0
loss_reduction: mean

encoder_block: !include:{root}/hparams/encoders/ecapa_mini.yaml
    channels: 16
    pooled_channels: 48
encoder: !ref <encoder_block[encoder]>
aam: !include:{root}/hparams/objectives/aam.yaml
    classes: !ref <classes>
    scale: 16.0
    margin: !ref <margin>
    margin_epochs: !ref <margin_epochs>
classifier: !ref <aam[classifier]>
loss_gate: !new:speechbrain_ssl.pseudo_labels.loss_gate.FixedLossGate
    threshold: !ref <gate>
    start_epoch: 2
label_correction: !new:speechbrain_ssl.pseudo_labels.label_correction.LabelCorrection
    temperature: 1.0
    threshold: 0.3
label_correction_epoch: 2
features_block: !include:{root}/hparams/features/logmel80.yaml
features: !ref <features_block[logmel]>
augmentation_block: !include:{root}/hparams/augmentation/noise_and_rooms.yaml
    noise_csv: !ref <noise_csv>
    rirs_csv: !ref <rirs_csv>
    clean: 0.0
    reverb: 0.5
    noise: 0.5
augmentation: !ref <augmentation_block[augmentation]>
crops: !new:speechbrain_ssl.data.crops.CropPlan
    global_crops: 1
    global_seconds: !ref <global_seconds>
optimizer: !name:torch.optim.AdamW
    betas: [0.9, 0.99]
schedules:
    lr: !new:speechbrain_ssl.schedules.WarmupCosine
        peak: !ref <lr>
        end: 0.001
        warmup_epochs: 0.5
    weight_decay: !new:speechbrain_ssl.schedules.Constant
        value: 0.01
    margin: !ref <aam[margin_schedule]>
epoch_counter: !new:speechbrain.utils.epoch_loop.EpochCounter
    limit: !ref <number_of_epochs>
collapse_alarm: !new:speechbrain_ssl.brains.collapse.CollapseAlarm
on_divergence: stop
checkpointer: !new:speechbrain_ssl.brains.checkpointing.AtomicCheckpointer
    checkpoints_dir: !ref <stage_folder>/save/checkpoints
"""


class Corpus:
    """Creates the tiny corpus with its manifests and its configurations.

    Arguments
    ---------
    folder : pathlib.Path
        An empty folder.
    """

    def __init__(self, folder):
        self.folder = folder
        self.audio = folder / "corpus"
        write_corpus(self.audio, **SIZES)
        wavs = sorted((self.audio / "wav").glob("id1*/*/*.wav"))
        self.train_csv = self.write_csv("train.csv", wavs)
        self.noise_csv = self.write_csv(
            "noise.csv", sorted((self.audio / "musan/noise").rglob("*.wav"))
        )
        self.rirs_csv = self.write_csv(
            "rirs.csv", sorted((self.audio / "RIRS_NOISES").rglob("*.wav"))
        )
        names = [
            p.relative_to(self.audio / "wav").as_posix()
            for p in sorted((self.audio / "wav").glob("id2*/*/*.wav"))
        ]
        self.trials = folder / "trials.txt"
        lines = [
            f"{int(a.split('/')[0] == b.split('/')[0])} {a} {b}\n"
            for a in names[::7]
            for b in names[3::7]
        ]
        self.trials.write_text("".join(lines))
        # Two levels down, like the YAML of a recipe.
        self.yaml = folder / "recipe" / "hparams" / "tiny.yaml"
        self.yaml.parent.mkdir(parents=True)
        self.yaml.write_text(_YAML.format(root=ROOT))
        self.rounds_yaml = self.yaml.with_name("rounds.yaml")
        self.rounds_yaml.write_text(_ROUNDS_YAML.format(root=ROOT))
        # In the order of the manifest; four speakers.
        self.speakers = [path.parts[-3] for path in wavs]
        self.speakers_csv = folder / "speakers.csv"
        self.write_speakers(self.speakers_csv, self.speakers)

    def write_csv(self, name, wavs):
        """Write a manifest of the given files."""
        rows = [
            {
                "ID": "-".join(path.parts[-3:]),
                "duration": (path.stat().st_size - 44) / 32000,
                "wav": str(path),
            }
            for path in wavs
        ]
        write_manifest(self.folder / name, pd.DataFrame(rows))
        return self.folder / name

    def write_speakers(self, path, speakers):
        """Write a table of speakers, in the order of the manifest."""
        table = pd.read_csv(self.train_csv)[["ID"]]
        table.assign(spk_id=speakers).to_csv(path, index=False)

    def held_out(self):
        """Return the paths of the utterances held out for validation."""
        _, valid = Manifest.read(self.train_csv).hold_out(8, 0.8)
        return {valid.path(i) for i in range(len(valid))}

    def argv(self, output, **overrides):
        """Return a command line for the ``train.py`` of SSL."""
        options = {
            "output_folder": output,
            "train_manifest": self.train_csv,
            "noise_csv": self.noise_csv,
            "rirs_csv": self.rirs_csv,
            "device": "cpu",
            **overrides,
        }
        flags = [f"--{key}={value}" for key, value in options.items()]
        return [str(self.yaml), *flags, "--noprogressbar"]

    def rounds_argv(self, output, model, **overrides):
        """Return a command line for the ``train.py`` of pseudo-labels."""
        options = {"initial_model": model, **overrides}
        if model is None:
            del options["initial_model"]
        argv = self.argv(output, **options)
        return [str(self.rounds_yaml), *argv[1:]]

    def command(self, output, **overrides):
        """Return the same command line as ``argv``, for a shell."""
        return [sys.executable, str(TRAIN), *self.argv(output, **overrides)]


def environment():
    """Return the environment of a subprocess, with one thread each."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": str(ROOT),
    }


def shell(command, timeout=120):
    """Run a command; return its exit status and its stderr."""
    done = subprocess.run(
        command,
        env=environment(),
        timeout=timeout,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def torchrun(*command):
    """Run a command in two processes, on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    launcher += ["--nproc_per_node=2", "--nnodes=1"]
    launcher += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    # The launcher does not delete its folder of logs.
    with tempfile.TemporaryDirectory() as logs:
        launcher += [f"--log_dir={logs}"]
        return shell([*launcher, *map(str, command)], timeout=180)


def load_train(path=TRAIN):
    """Import a training script as a module."""
    spec = importlib.util.spec_from_file_location("a_train_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Cut(Exception):
    """Raised to end a run in the middle."""


def run_until(train, argv, step):
    """End a run after an optimiser step, before a checkpoint is written."""
    original = SSLBrain.on_fit_batch_end

    def cut(brain, *args):
        original(brain, *args)
        if brain.optimizer_step == step:
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SSLBrain, "on_fit_batch_end", cut)
        with pytest.raises(Cut):
            train.main(argv)


def tensors(thing, prefix=""):
    """Return all tensors of nested dictionaries and lists, by name."""
    if torch.is_tensor(thing):
        return {prefix: thing}
    items = []
    if isinstance(thing, dict):
        items = thing.items()
    elif isinstance(thing, (list, tuple)):
        items = enumerate(thing)
    found = {}
    for key, value in items:
        found.update(tensors(value, f"{prefix}/{key}"))
    return found


#: Parts of a checkpoint that are compared: of a self-supervised run, and of
#: training on pseudo-labels.
SSL_PARTS = ("encoder", "objective", "teacher", "optimizer")
LABEL_PARTS = (
    "encoder",
    "classifier",
    "losses",
    "corrections",
    "gate",
    "optimizer",
)


def newest_checkpoint(output):
    """Return the newest of the two checkpoints that a run keeps.

    Names do not tell: they have a resolution of one second.
    """
    return Checkpointer(output / "save" / "checkpoints").find_checkpoint()


def newest_step(output):
    """Return the optimiser step of the newest checkpoint."""
    text = newest_checkpoint(output).paramfiles["brain"].read_text()
    return int(text.split("optimizer_step:")[1].split()[0])


def final_tensors(output, parts=SSL_PARTS):
    """Return all tensors of a run: last checkpoint, kept weights, export."""
    output = pathlib.Path(output)
    checkpoint = newest_checkpoint(output).path
    files = [checkpoint / f"{name}.ckpt" for name in parts]
    files += sorted((output / "save" / "weights").glob("*.pt"))
    files += [output / "model" / "embedding_model.ckpt"]
    found = {}
    for path in files:
        state = torch.load(path, weights_only=True, map_location="cpu")
        found.update(tensors(state, path.name))
    assert len(found) > 200
    return found


def assert_identical(left, right, parts=SSL_PARTS):
    """Assert that two runs left the same tensors, bit for bit."""
    left, right = final_tensors(left, parts), final_tensors(right, parts)
    assert left.keys() == right.keys()
    differing = [k for k in left if bits(left[k]) != bits(right[k])]
    assert not differing


def assert_close(left, right):
    """Assert that two runs left the same weights up to rounding.

    A ReLU has no gradient at zero. Where rounding puts an input on its other
    side, which depends on the processor, a few small tensors move by some
    thousandths; a wrong gradient or batch norm moves nearly all of them by more
    than what is allowed to one in ten.
    """
    assert left.keys() == right.keys()
    errors = {}
    for name in left:
        if not name.startswith("optimizer"):
            a, b = left[name].double(), right[name].double()
            errors[name] = float((a - b).norm() / b.norm().clamp(min=1e-2))
    assert len(errors) > 100
    worst = sorted(errors.items(), key=lambda item: -item[1])
    assert worst[0][1] < 1e-2, worst[:5]
    assert worst[len(worst) // 10][1] < 1e-4, worst[:5]


def bits(tensor):
    """Return type, shape and bytes: NaN (an unseen utterance) equals NaN."""
    return tensor.dtype, tensor.shape, tensor.numpy().tobytes()


def lines(output, stage="train"):
    """Return the lines of one stage in ``metrics.jsonl``, without wall time."""
    found = read_metrics(pathlib.Path(output) / "metrics.jsonl")
    for line in found:
        line.pop("minutes", None)
    return [line for line in found if line["stage"] == stage]


def results(output):
    """Return the content of ``results.json``."""
    path = pathlib.Path(output) / "results.json"
    return json.loads(path.read_text(encoding="utf-8"))
