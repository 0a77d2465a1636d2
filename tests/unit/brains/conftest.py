"""A Brain on noise, for tests that read no files."""

import types

import numpy as np
import pytest
import torch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_ssl.brains.checkpointing import AtomicCheckpointer
from speechbrain_ssl.brains.collapse import CollapseAlarm
from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.data.augmentation import Augmentation
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.dataset import CropBatch
from speechbrain_ssl.data.sampling import EpochBatchSampler
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.objectives.dino import DINO
from speechbrain_ssl.objectives.dino_head import DINOHead
from speechbrain_ssl.schedules import Constant

BATCH = 4


class Batches(torch.utils.data.Dataset):
    """Crops of noise; ``poison`` names those whose samples are NaN."""

    def __init__(self, count, poison=(), crops=4):
        generator = torch.Generator().manual_seed(3)
        shape = (count, BATCH, crops, 4000)
        self.waves = 0.1 * torch.randn(shape, generator=generator)
        for number in poison:
            self.waves[number] = float("nan")

    def __len__(self):
        return len(self.waves)

    def __getitem__(self, number):
        # Views of an utterance differ; two groups, as in a crop plan.
        waves = self.waves[number].clone()
        return CropBatch(
            crops=[waves[:, :2], waves[:, 2:, :3200]],
            index=torch.arange(BATCH),
            keys=np.arange(BATCH, dtype=np.uint64),
            epoch=1,
            bad=[],
        )


def loader(*args, **kwargs):
    """A loader of such batches."""
    return torch.utils.data.DataLoader(
        Batches(*args, **kwargs), batch_size=None
    )


@pytest.fixture
def make_brain(tmp_path):
    """``make_brain(steps, epochs, **hparams)`` -> Brain and fit function."""

    def make(steps=3, epochs=1, run_opts=None, checkpoints=False, **hparams):
        torch.manual_seed(0)
        values = {
            "features": LogMel(n_mels=20, sample_rate=16000),
            "augmentation": Augmentation({"clean": 1.0}),
            "schedules": {
                "lr": Constant(0.01),
                "weight_decay": Constant(0.1),
                "momentum": Constant(0.9),
                "teacher_temperature": Constant(0.04),
                "cosine_weight": Constant(0.0),
            },
            "lr_reference_batch": BATCH,
            "clip_per_tensor": 3.0,
            "freeze_last_layer_epochs": 0,
            "average_last": 2,
            "initial_model": None,
            "initial_checkpoint": None,
            "positives": None,
            "crops": CropPlan(2, 0.25, local_crops=2, local_seconds=0.2),
            "collapse_alarm": CollapseAlarm(),
            "on_divergence": "stop",
            "log_every": 1,
            "train_logger": None,
            "seed": 1,
            "number_of_epochs": epochs,
            "batch_size": BATCH,
            "epoch_counter": EpochCounter(epochs),
            "output_folder": str(tmp_path),
            "trials": None,
            "trials_every": 0,
            **hparams,
        }
        folder = tmp_path / "save" / "checkpoints"
        opts = {"device": "cpu", "noprogressbar": True, **(run_opts or {})}
        brain = SSLBrain(
            modules={
                "encoder": FastECAPA(
                    20,
                    channels=[8, 8, 8, 8, 24],
                    lin_neurons=10,
                    attention_channels=8,
                    res2net_scale=2,
                    se_channels=8,
                ),
                "objective": DINO(
                    DINOHead(10, prototypes=12, hidden=8, bottleneck=6)
                ),
            },
            opt_class=torch.optim.AdamW,
            hparams=values,
            run_opts=opts,
            checkpointer=AtomicCheckpointer(folder) if checkpoints else None,
        )
        brain.train_sampler = EpochBatchSampler(
            steps * BATCH, BATCH, 1, multiple=brain.grad_accumulation_factor
        )
        return brain

    return types.SimpleNamespace(brain=make, loader=loader)
