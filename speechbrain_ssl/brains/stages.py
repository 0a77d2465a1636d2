"""The stages of a round: embed the training set, cluster it, train on it.

``rounds`` decides which stage runs when. Embeddings are stored by
``speechbrain_ssl.embedding.store``; the clusterings are in
``speechbrain_ssl.clustering.methods``; training is ``PseudoLabelBrain``.
"""

import logging

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.initial import labels_of_model, strongest
from speechbrain_ssl.brains.pseudo_label_brain import PseudoLabelBrain
from speechbrain_ssl.brains.verdict import compare_exported
from speechbrain_ssl.clustering.quality import (
    against_speakers,
    agreement,
    cluster_sizes,
    silhouette,
)
from speechbrain_ssl.clustering.views import join_views
from speechbrain_ssl.data.manifest import rows_of
from speechbrain_ssl.embedding.store import EmbeddingStore
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.precision import DTYPES
from speechbrain_ssl.pseudo_labels.centers import set_centers
from speechbrain_ssl.pseudo_labels.given import GivenLabels
from speechbrain_ssl.pseudo_labels.labels import (
    keep_sizes,
    majority_classes,
    read_labels,
    write_labels,
)
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.run_folder import (
    LOG_CONFIG,
    make_run_folder,
    write_hyperparams,
)

logger = logging.getLogger(__name__)


class Stages:
    """Implements the stages of a round.

    ``embed``, ``cluster``, ``train`` and ``fine_tune`` are the stages. Each
    takes the number of the round, ``fine_tune`` also the place of the final
    stage among several, and returns a dictionary of metrics for
    ``rounds.json``. All processes call them.

    Arguments
    ---------
    load : callable
        See ``speechbrain_ssl.brains.rounds.Rounds``.
    hparams : dict
        The hyper-parameters.
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.
    manifest : speechbrain_ssl.data.manifest.Manifest
        The training set.
    folder : pathlib.Path
        The output folder, which holds the folders of all rounds.
    device : str
        Where to compute.
    """

    #: What trains, and the hyper-parameters that are its modules.
    brain_class = PseudoLabelBrain
    module_names = ("encoder", "classifier")

    def __init__(self, load, hparams, run_opts, manifest, folder, device):
        self.load, self.hparams, self.run_opts = load, hparams, run_opts
        self.manifest, self.folder, self.device = manifest, folder, device
        self.speakers = self._read_speakers()

    @property
    def labels_are_given(self):
        """Whether the labels are read from a file instead of clustered."""
        return isinstance(self.hparams["labels_from"], GivenLabels)

    @property
    def labels_seen(self):
        """Which speaker labels are in the labels, or in the models of a round."""
        models = [self.hparams["initial_model"], *self.hparams["other_models"]]
        return strongest(
            self.hparams["labels_from"].labels_seen,
            *map(labels_of_model, models),
        )

    @property
    def initial_model(self):
        """Folder of the model that initialises the first round, or None."""
        if self.hparams["start_from"] == "nothing":
            return None
        return self.hparams["initial_model"]

    @property
    def needs_embeddings(self):
        """Whether embeddings are needed, to cluster or for initial centres."""
        if not self.labels_are_given:
            return True
        centers = self.hparams["centers_from_embeddings"]
        return centers and self.initial_model is not None

    @property
    def embed_options(self):
        """Options that change an embedding, besides model and audio."""
        return {
            "precision": DTYPES[self.hparams.get("eval_precision", "fp32")],
            "most_seconds": self.hparams["embed_most_seconds"],
        }

    def _read_speakers(self):
        """Return speaker labels for monitoring, int64 ``[N]``, or None."""
        path = self.hparams["monitor_labels"]
        if path is None:
            return None
        column = self.hparams["monitor_column"]
        return read_labels(path, self.manifest, column)[0]

    def round_folder(self, number):
        """Return the folder of a round."""
        return self.folder / f"round_{number}"

    @property
    def final_stages(self):
        """What each final stage changes, as a list of dictionaries."""
        changes = self.hparams["final_stage"] or []
        return changes if isinstance(changes, list) else [changes]

    def fine_tuning_folder(self, number, place=1):
        """Return the folder of a final stage, of which ``place`` 1 is the first.

        It is named after the last round, since more rounds may be added later.
        """
        name = f"fine_tuning_{number}"
        return self.folder / (name if place == 1 else f"{name}_{place}")

    def _model_before(self, number):
        """Return the folder of the model whose embeddings a round clusters."""
        if number == 1:
            return self.hparams["initial_model"]
        return self.round_folder(number - 1)

    def stores(self, number):
        """Return model -> store of its embeddings, for all clustered views.

        The first view is the model of the previous round; ``other_models`` are
        further views.
        """
        models = [self._model_before(number), *self.hparams["other_models"]]
        folders = ["embeddings"] + [
            f"embeddings_{i}" for i in range(1, len(models))
        ]
        return {
            str(model): EmbeddingStore(
                self.round_folder(number) / folder,
                self.manifest,
                self.hparams["shard_utterances"],
            )
            for model, folder in zip(models, folders, strict=True)
        }

    def embed(self, number):
        """Embed the training set with the model of the previous round."""
        if not self.needs_embeddings:
            return {}
        bad = 0
        for model, store in self.stores(number).items():
            encoder, features = load_encoder(model, self.device)
            store.make(
                encoder,
                features,
                **self.embed_options,
                device=self.device,
                batch_seconds=self.hparams["embed_batch_seconds"],
                num_workers=self.hparams["num_workers"],
                progress=not self.run_opts["noprogressbar"],
            )
            bad += len(store.bad())
        return {"utterances": len(self.manifest), "bad": bad}

    def cluster(self, number):
        """Write the labels of a round and measure their quality."""
        seed, metrics = self.hparams["seed"], {}
        # Thresholds of a clustering may depend on the round.
        source = self.load(round=number)[-1]["labels_from"]
        if self.labels_are_given:
            labels = source.read(self.manifest, seed)
        else:
            rows, places = self._read_share(number)
            names = Names(self.manifest.ids, places)
            own, metrics = source(rows, seed + number, self.device, names)
            own = self._settle(number, rows, places, own)
            labels = self._everywhere(own, places)
            metrics |= cluster_sizes(labels[labels >= 0])
            metrics |= self._quality(number, rows, places, labels)
        if self.speakers is not None:
            known = (labels >= 0) & (self.speakers >= 0)
            if known.any():
                metrics |= against_speakers(labels[known], self.speakers[known])
        labels = keep_sizes(
            labels,
            self.hparams["min_cluster_size"],
            self.hparams["max_cluster_size"],
        )
        metrics["labelled"] = int((labels >= 0).sum())
        if if_main_process():
            write_labels(
                self.round_folder(number) / "labels.csv", self.manifest, labels
            )
        ddp_barrier()
        logger.info(
            "round %d: %d utterances in %d clusters%s",
            number,
            metrics["labelled"],
            labels.max() + 1,
            f", NMI {metrics['agreement_nmi']:.3f} with the previous round"
            if "agreement_nmi" in metrics
            else "",
        )
        return metrics

    def _settle(self, number, rows, places, labels):
        """Return the final clusters of this process's rows; a hook."""
        return labels

    def _read_share(self, number):
        """Return this process's share of the embeddings, views joined.

        See ``_read``.
        """
        total, ranks = len(self.manifest), distributed.world_size()
        first = total * distributed.rank() // ranks
        last = total * (distributed.rank() + 1) // ranks
        return self._read(number, first, last)

    def _read(self, number, first, last):
        """Return embeddings of utterances ``first`` to ``last - 1``.

        Returns
        -------
        numpy.ndarray
            ``[n, size]``, the views side by side. Utterances without an
            embedding are missing.
        numpy.ndarray
            Their positions in the manifest, int64 ``[n]``.
        """
        read = {
            model: store.read(first, last)
            for model, store in self.stores(number).items()
        }
        # Keep the utterances that have an embedding in every view.
        places = np.arange(first, last)
        for _, there in read.values():
            places = np.intersect1d(places, there, assume_unique=True)
        views = {
            model: rows[np.isin(there, places, assume_unique=True)]
            for model, (rows, there) in read.items()
        }
        if len(views) == 1:
            return next(iter(views.values())), places
        names = Names(self.manifest.ids, places)
        return join_views(views, names=names).numpy(), places

    def _everywhere(self, own, places):
        """Merge the labels of all processes.

        Arguments
        ---------
        own : numpy.ndarray
            Labels of this process's utterances, int64 ``[n]``.
        places : numpy.ndarray
            Their positions in the manifest, int64 ``[n]``.

        Returns
        -------
        numpy.ndarray
            int64 ``[N]``; -1 for utterances without a label.
        """
        device = distributed.collective_device()
        labels = torch.full((len(self.manifest),), -1, device=device)
        labels[torch.from_numpy(places).to(device)] = torch.from_numpy(own).to(
            device
        )
        if distributed.is_distributed():
            torch.distributed.all_reduce(labels, torch.distributed.ReduceOp.MAX)
        return labels.cpu().numpy()

    def _quality(self, number, rows, places, labels):
        """Return label-free metrics of a clustering, on rank 0 only.

        These are the silhouette and, from the second round on, the agreement
        with the labels of the previous round.
        """
        if not if_main_process():
            return {}
        if distributed.is_distributed():
            # The silhouette needs whole clusters, and a share holds only parts
            # of most of them.
            with distributed.single_process():
                rows, places = self._read(number, 0, len(self.manifest))
        own = labels[places]
        metrics = {
            "silhouette": silhouette(
                rows[own >= 0], own[own >= 0], self.hparams["silhouette_sample"]
            )
        }
        if number > 1:
            before, _ = read_labels(
                self.round_folder(number - 1) / "labels.csv", self.manifest
            )
            now, old = labels >= 0, before >= 0
            keys = self.manifest.keys
            found = agreement(keys[now], labels[now], keys[old], before[old])
            metrics["agreement_nmi"] = found["nmi"]
            metrics["agreement_ari"] = found["ari"]
        return metrics

    def train(self, number):
        """Train an encoder on the labels of a round."""
        starts = {
            "initial": self.hparams["initial_model"],
            "previous": self._model_before(number),
            "nothing": None,
        }
        folder = self.round_folder(number)
        return self._train(
            folder,
            folder / "labels.csv",
            number,
            self._model_before(number),
            initial_model=starts[self.hparams["start_from"]],
        )

    def fine_tune(self, number, place=1):
        """Train the last model further, with the settings of a final stage.

        Only the labels that the gate kept are used. This is meant for
        large-margin fine-tuning (longer crops and a larger margin) and for a
        pre-trained encoder whose weights the rounds have left frozen.
        """
        before = self.round_folder(number)
        if place > 1:
            before = self.fine_tuning_folder(number, place - 1)
        return self._train(
            self.fine_tuning_folder(number, place),
            before / "trusted.csv",
            number,
            before,
            initial_model=before,
            initial_classifier=str(before / "save" / "classifier.pt"),
            **self.final_stages[place - 1],
        )

    def _embedded_by(self, model, number):
        """Return the stored embeddings that a model made of the training set.

        Raises
        ------
        ConfigError
            If no round has embeddings by this model.
        """
        for past in range(1, number + 1):
            for name, store in self.stores(past).items():
                if name == str(model):
                    return store
        raise ConfigError(
            f"there are no embeddings by {model}; set "
            "`centers_from_embeddings` to False"
        )

    def _set_centers(self, hparams, initial_model, number, labels):
        """Initialise the classes with mean embeddings of their members."""
        embedded = self._embedded_by(initial_model, number)
        set_centers(hparams["classifier"], *embedded.read(), labels)

    def _train(
        self, folder, labels_csv, number, start, initial_model, **changes
    ):
        """Train once and return the metrics.

        Arguments
        ---------
        folder : pathlib.Path
            The output folder of this stage.
        labels_csv : pathlib.Path
            The labels to train on.
        number : int
            Number of the round.
        start : str or pathlib.Path
            Model that the trained one is compared with.
        initial_model : str or pathlib.Path or None
            Model that initialises the encoder.
        **changes : dict
            Further changes to the hyper-parameters.

        Returns
        -------
        dict
            ``gate_kept``, the share of the utterances that the gate keeps; the
            comparison with ``start`` (see ``compare_label_free``), unless the
            labels were given; and the EERs of ``results.json``, if trials are
            evaluated.
        """
        labels, names = read_labels(labels_csv, self.manifest)
        # Fine-tuning uses fewer labels but keeps the classes of the round.
        _, classes = read_labels(
            self.round_folder(number) / "labels.csv", self.manifest
        )
        labels = np.where(labels >= 0, np.array(names, int)[labels], -1)
        path, overrides, hparams = self.load(
            stage_folder=str(folder),
            classes=len(classes),
            round=number,
            initial_model=None if initial_model is None else str(initial_model),
            **changes,
        )
        make_run_folder(folder)
        write_hyperparams(folder, path, overrides)
        # The Brain's output folder is that of this stage, not of all rounds.
        hparams["output_folder"] = str(folder)
        hparams["valid_utterances"] = min(
            hparams["valid_utterances"], self.hparams["valid_utterances"]
        )
        hparams["labels_seen"] = self.labels_seen
        brain = self.brain_class(
            modules={name: hparams[name] for name in self.module_names},
            opt_class=hparams["optimizer"],
            hparams=hparams,
            run_opts=self.run_opts,
            checkpointer=hparams["checkpointer"],
        )
        labelled = np.flatnonzero(labels >= 0)
        train_loader, valid_loader = brain.make_loaders(
            self.manifest.select(labelled), seed=hparams["seed"] + number
        )
        rows = rows_of(brain.train_manifest, self.manifest)
        begins = initial_model and not hparams["initial_classifier"]
        if begins and hparams["centers_from_embeddings"]:
            self._set_centers(hparams, initial_model, number, labels)
        truth = None
        if self.speakers is not None:
            truth, _ = majority_classes(labels[rows], self.speakers[rows])
        brain.set_labels(labels[rows], truth)
        brain.fit(hparams["epoch_counter"], train_loader, valid_loader)
        metrics, found = brain.finish(), {}
        if if_main_process():
            trusted = brain.trusted()
            found["gate_kept"] = float(trusted.mean())
            if not self.labels_are_given:
                found |= self._verdict(start, folder, brain)
            kept = np.full(len(self.manifest), -1)
            kept[rows] = np.where(trusted, labels[rows], -1)
            write_labels(folder / "trusted.csv", self.manifest, kept)
            # Later messages belong in the log of all rounds, not in this
            # stage's.
            to_file = {"filename": str(self.folder / "log.txt")}
            sb.utils.logger.setup_logging(
                LOG_CONFIG, {"handlers": {"file_handler": to_file}}
            )
        names = ("eer", "ci_low", "ci_high", "eer_initial")
        names += ("face_eer", "both_eer")
        return found | {k: metrics[k] for k in names if k in metrics}

    def _verdict(self, start, folder, brain):
        """Compare a trained model with its start; see ``compare_exported``."""
        return compare_exported(
            start,
            folder,
            self.manifest,
            brain.train_manifest.keys,
            self.hparams,
            brain.augmentation,
            brain.device,
        )


class Names:
    """Looks up the IDs of utterances, for error messages."""

    def __init__(self, ids, places):
        self.ids, self.places = ids, places

    def __len__(self):
        return len(self.places)

    def __getitem__(self, i):
        return self.ids[int(self.places[i])]
