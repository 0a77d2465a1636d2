"""Fine-tune an encoder for a downstream task, fold by fold.

Training has two steps, which Cho et al. (arXiv 2208.05445) found better than a
single one: first the last affine layers alone (the encoder's, which computes
the embedding, and the classifier's), then the whole network. The length and
learning rate of each step and the chunk length are settings; the values of the
recipes are defaults of ours.
"""

import copy
import dataclasses
import hashlib
import pathlib

import numpy as np
import torch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_ssl.brains.checkpointing import AtomicCheckpointer
from speechbrain_ssl.brains.emotion_brain import EmotionBrain, make_classifier
from speechbrain_ssl.brains.encoding import check_rows
from speechbrain_ssl.data.augmentation import Augmentation
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.dataset import CropDataset
from speechbrain_ssl.data.sampling import EpochBatchSampler
from speechbrain_ssl.downstream.probe import check_finite
from speechbrain_ssl.embedding.cache import fingerprint
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.interruption import init_loader_worker
from speechbrain_ssl.schedules import WarmupCosine


@dataclasses.dataclass
class FineTuning:
    """Trains encoder and classifier on every fold, and predicts its test side.

    The schedule is fixed and the last epoch is used: no utterance is used to
    choose a setting or an epoch.

    Arguments
    ---------
    affine_epochs : int
        Epochs of the first step, in which all layers but the last affine ones
        are frozen; 0 skips it.
    affine_lr : float
        Learning rate at its beginning; a cosine to 0 follows.
    epochs : int
        Epochs of the second step, in which all layers are trained; 0 skips
        it.
    lr : float
        Learning rate at its beginning; a cosine to 0 follows.
    batch_size : int
        Utterances in a step.
    chunk_seconds : float
        Length of the training chunk of an utterance, drawn anew each epoch; a
        shorter utterance is repeated. Test utterances are not cut.
    weight_decay : float
        Weight decay of AdamW.
    augmentation : speechbrain_ssl.data.augmentation.Augmentation
        Augmentation of the chunks.

    Raises
    ------
    ConfigError
        If both steps have no epoch.
    """

    affine_epochs: int
    affine_lr: float
    epochs: int
    lr: float
    batch_size: int
    chunk_seconds: float
    weight_decay: float
    augmentation: Augmentation

    def __post_init__(self):
        counts = (self.affine_epochs, self.epochs)
        if min(counts) < 0 or sum(counts) < 1:
            raise ConfigError(
                "fine-tuning needs at least one epoch (`affine_epochs`, "
                f"`epochs`), got {counts}"
            )

    def labels_seen(self, label, system):
        """Describe the labels that were used for the predictions."""
        return (
            f"{label}, by classifier and encoder; {system.labels_seen} by the "
            "encoder before"
        )

    def __call__(self, task, folds, system, hparams, run_opts):
        """Predict the test side of every fold; see ``Probe``.

        ``seed`` is read as well. An interrupted run resumes from its last
        complete epoch, bit for bit on a CPU.

        Raises
        ------
        ConfigError
            If the encoder has no affine layer to start with, or a batch is too
            small for its batch norms.
        """
        if not hasattr(system.encoder, "last_affine"):
            raise ConfigError(
                f"--model={system.name} has no weights to fine-tune; take the "
                "output folder of a training run, or `untrained`"
            )
        check_rows(
            system.encoder, self._crops(system.features), self.batch_size
        )
        self.augmentation.load()
        for number, fold in enumerate(folds):
            brain = self._brain(number, task, fold, system, hparams, run_opts)
            brain.fit(
                brain.hparams.epoch_counter, self._loader(brain, task, fold)
            )
            predicted = self._predict(brain, task, fold, hparams)
            yield predicted, {"train_loss": brain.last_loss}

    def _crops(self, features):
        """Return the plan of a single chunk an utterance."""
        return CropPlan(
            global_crops=1,
            global_seconds=self.chunk_seconds,
            chunk_seconds=max(20.0, self.chunk_seconds),
            sample_rate=features.sample_rate,
        )

    def _loader(self, brain, task, fold):
        """Build the loader of chunks of the training side."""
        brain.labels = torch.from_numpy(task.labels[fold.train])
        dataset = CropDataset(
            task.manifest.select(fold.train),
            self._crops(brain.hparams.features),
            brain.hparams.seed,
        )
        accumulated = brain.grad_accumulation_factor
        brain.train_sampler = EpochBatchSampler(
            len(dataset),
            self.batch_size,
            brain.hparams.seed,
            multiple=accumulated,
        )
        steps = len(brain.train_sampler) // accumulated
        brain.rates = np.concatenate(
            [
                WarmupCosine(rate, 0.0)(epochs, steps)
                for rate, epochs in (
                    (self.affine_lr, self.affine_epochs),
                    (self.lr, self.epochs),
                )
                if epochs
            ]
        )
        return torch.utils.data.DataLoader(
            dataset,
            batch_sampler=brain.train_sampler,
            collate_fn=dataset.collate,
            num_workers=brain.hparams.num_workers,
            persistent_workers=brain.hparams.num_workers > 0,
            # A separate generator, so that the global one is not used.
            generator=torch.Generator().manual_seed(brain.hparams.seed),
            worker_init_fn=init_loader_worker,
        )

    def _brain(self, number, task, fold, system, hparams, run_opts):
        encoder = copy.deepcopy(system.encoder)
        seed = hparams["seed"]
        classifier = make_classifier(
            encoder.arguments["lin_neurons"], len(task.classes), seed + number
        )
        folder = pathlib.Path(hparams["output_folder"]) / "save"
        return EmotionBrain(
            modules={"encoder": encoder, "classifier": classifier},
            opt_class=torch.optim.AdamW,
            hparams={
                "features": copy.deepcopy(system.features),
                "augmentation": self.augmentation,
                "seed": seed,
                "num_workers": hparams["num_workers"],
                "precision": hparams.get("precision", "fp32"),
                "affine_epochs": self.affine_epochs,
                "weight_decay": self.weight_decay,
                "fingerprint": self._fingerprint(task, fold, system, seed),
                "epoch_counter": EpochCounter(self.affine_epochs + self.epochs),
            },
            run_opts=run_opts,
            checkpointer=AtomicCheckpointer(folder / f"fold_{fold.name}"),
        )

    def _fingerprint(self, task, fold, system, seed):
        """Return the settings that a checkpoint must share to be resumed."""
        digest = hashlib.sha256()
        for indices in (fold.train, fold.test):
            digest.update(task.manifest.keys[indices].tobytes())
            digest.update(task.labels[indices].tobytes())
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "augmentation"
        }
        banks = self.augmentation.banks.items()
        telephone = self.augmentation.telephone
        return {
            **values,
            "augmentation": self.augmentation.limits.tolist(),
            "kinds": self.augmentation.kind_limits.tolist(),
            "telephone": telephone
            and [telephone.probability, *telephone.codecs],
            "noises": {
                name: [*bank.snr, *bank.voices, bank.samples.numel()]
                for name, bank in banks
            },
            "model": fingerprint(system.encoder, system.features)[:16],
            "utterances": digest.hexdigest()[:16],
            "classes": list(task.classes),
            "seed": seed,
        }

    @staticmethod
    @torch.no_grad()
    def _predict(brain, task, fold, hparams):
        judged = task.manifest.select(fold.test)
        embeddings = embed_files(
            brain.modules.encoder,
            brain.hparams.features,
            task.paths(fold.test),
            judged.durations.tolist(),
            device=brain.device,
            batch_seconds=hparams["batch_seconds"],
            num_workers=hparams["num_workers"],
        )
        check_finite(embeddings, judged.ids)
        inputs = torch.from_numpy(embeddings).to(brain.device)
        classifier = brain.modules.classifier.eval()
        return classifier(inputs).argmax(1).cpu().numpy()
