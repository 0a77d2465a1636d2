"""Pictures for the tiny corpus, and a configuration with voices and faces."""

import csv

import numpy as np
import PIL.Image
import tiny
import torch

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.face import FaceResNet, PixelNormalization
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.publishing.export import export_encoder

SIZE = 16
ROUNDS = tiny.ROOT / "recipes" / "VoxCeleb" / "AudioVisual" / "train.py"

#: Every fifth utterance has no face.
LACKING = 5

_YAML = """\
base: rounds.yaml
number_of_epochs: 2
face_csv: !PLACEHOLDER
faces_root: null
initial_face_model: null
trials_faces: null
reading: both
image_size: {size}
crops: !new:speechbrain_ssl.data.paired.PairedCrops
    global_crops: 1
    global_seconds: !ref <global_seconds>
    faces: !ref <face_csv>
    image_size: !ref <image_size>
face_encoder_block: !include:{root}/hparams/encoders/face_resnet.yaml
    image_size: !ref <image_size>
    embedding_size: 24
    channels: 4
    blocks: [1, 1, 1, 1]
face_encoder: !ref <face_encoder_block[encoder]>
face_aam: !include:{root}/hparams/objectives/aam.yaml
    embedding_size: 24
    classes: !ref <classes>
    scale: 16.0
face_classifier: !ref <face_aam[classifier]>
face_features: !new:speechbrain_ssl.encoders.face.PixelNormalization
    size: !ref <image_size>
face_augmentation_block: !include:{root}/hparams/augmentation/faces.yaml
    flip: 0.5
face_augmentation: !ref <face_augmentation_block[augmentation]>
loss_gate: !new:speechbrain_ssl.pseudo_labels.joint_gate.JointLossGate
    reading: !ref <reading>
    make_gate: !name:speechbrain_ssl.pseudo_labels.loss_gate.FixedLossGate
        threshold: !ref <gate>
        start_epoch: 2
label_correction: !new:speechbrain_ssl.pseudo_labels.joint_correction.JointLabelCorrection
    temperature: 1.0
    threshold: 0.3
"""


class Faces:
    """Draws pictures for a tiny corpus, beside an encoder and a YAML.

    Arguments
    ---------
    corpus : tiny.Corpus
        The corpus.
    """

    def __init__(self, corpus):
        self.corpus = corpus
        self.yaml = corpus.rounds_yaml.with_name("audio_visual.yaml")
        self.yaml.write_text(_YAML.format(root=tiny.ROOT, size=SIZE))
        self.model = corpus.folder / "face_model"
        torch.manual_seed(0)
        encoder = FaceResNet(SIZE, 24, 4, (1, 1, 1, 1))
        export_encoder(self.model, encoder, PixelNormalization(SIZE))
        with open(corpus.train_csv) as stream:
            ids = [row["ID"] for row in csv.DictReader(stream)]
        self.ids = ids
        self.csv = self.write("faces.csv", ids, corpus.speakers)
        lines = corpus.trials.read_text().split("\n")[:-1]
        names = sorted({name for line in lines for name in line.split()[1:]})
        self.trials_csv = self.write(
            "trial_faces.csv",
            [name.removesuffix(".wav") for name in names],
            [name.split("/")[0] for name in names],
        )

    def write(self, name, ids, people, extra=()):
        """Draw two pictures of most utterances; return their manifest."""
        folder = self.corpus.folder / name.removesuffix(".csv")
        folder.mkdir()
        path = self.corpus.folder / name
        with open(path, "w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["ID", "image", *extra])
            for i, (key, person) in enumerate(zip(ids, people, strict=True)):
                for shot in range(2 if i % LACKING else 0):
                    image = folder / f"{i}_{shot}.png"
                    draw(person, (i, shot)).save(image)
                    rows.writerow([key, image, *[person for _ in extra]])
        return path

    def argv(self, output, model, **overrides):
        """Return a command line for the ``train.py`` of audio-visual rounds."""
        options = {
            "face_csv": self.csv,
            "initial_face_model": self.model,
            **overrides,
        }
        argv = self.corpus.rounds_argv(output, model, **options)
        return [str(self.yaml), *argv[1:]]


def export_voices(folder):
    """Export an untrained encoder of voices, as the tiny configuration has it."""
    torch.manual_seed(0)
    encoder = FastECAPA(
        80,
        channels=[16, 16, 16, 16, 48],
        attention_channels=64,
        se_channels=64,
    )
    export_encoder(folder, encoder, LogMel())
    return folder


def export_faces(folder):
    """Export an untrained encoder of faces, as MiniVox's recipes have it."""
    encoder = FaceResNet(48, 128, 16, (1, 1, 1, 1))
    return export_encoder(folder, encoder, PixelNormalization(48))


def draw(person, shot):
    """Draw a picture of a person: rough squares, and noise of the shot."""
    rng = np.random.default_rng(sum(person.encode()))
    rough = rng.uniform(40, 215, (4, 4, 3)).repeat(4, 0).repeat(4, 1)
    noise = np.random.default_rng(shot).normal(0, 15, rough.shape)
    return PIL.Image.fromarray((rough + noise).clip(0, 255).astype(np.uint8))
