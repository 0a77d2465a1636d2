"""Rounds of pseudo labels: embed, cluster, train, and again.

    model 0 = the self-supervised encoder
    round r:  embed     the training set with model r - 1
              cluster   the embeddings: these are the labels of round r
              train     an encoder on them, behind a loss gate: model r

This file is the loop, and nothing else is. After each stage its figures are
written to ``rounds.json``; what is not there has not been done. A run that is
killed goes on in the stage it was in, which goes on by its own means (shards
of embeddings, checkpoints of training).

    output_folder/
        rounds.json, results.json, report.html, model/     of the last stage
        round_1/
            embeddings/      shards of the training set, by model 0
            labels.csv       utterance and cluster
            trusted.csv      those the gate has kept at the end
            metrics.jsonl, results.json, report.html, model/, gate/, save/

Nothing here looks at a speaker label, but for figures whose names begin with
``monitor_``.
"""

import json
import logging
import pathlib
import shutil
import time

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    infer_device,
)

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.pseudo_label_brain import PseudoLabelBrain
from speechbrain_ssl.clustering.quality import (
    against_speakers,
    agreement,
    cluster_sizes,
    silhouette,
)
from speechbrain_ssl.clustering.rows import unit_rows
from speechbrain_ssl.clustering.views import join_views
from speechbrain_ssl.data.loaders import make_loaders
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.precision import DTYPES
from speechbrain_ssl.pseudo_labels.given import GivenLabels
from speechbrain_ssl.pseudo_labels.labels import (
    keep_large,
    majority_classes,
    read_labels,
    write_labels,
)
from speechbrain_ssl.publishing.export import initialise, load_encoder
from speechbrain_ssl.report.rounds import build_rounds_report
from speechbrain_ssl.settings import write_hyperparams
from speechbrain_ssl.verification.store import EmbeddingStore

logger = logging.getLogger(__name__)

STAGES = ("embed", "cluster", "train")


def stop_reason(agreements, least, gain):
    """Whether another round is worth its time, judged without labels.

    Arguments
    ---------
    agreements : list of float
        NMI of the labels of each round, from the second on, with those of the
        round before.
    least : float
        The rounds end where the labels agree at least so well: there is
        little left that training could change.
    gain : float
        They also end where the agreement has grown by less than this over the
        last two rounds.

    Returns
    -------
    str or None
        Why to stop.

    Example
    -------
    >>> stop_reason([0.90], least=0.98, gain=0.0)
    >>> stop_reason([0.90, 0.985], least=0.98, gain=0.0)
    'the labels agree with those of the round before: NMI 0.985'
    """
    if not agreements:
        return None
    if agreements[-1] >= least:
        return (
            "the labels agree with those of the round before: NMI "
            f"{agreements[-1]:.3f}"
        )
    if len(agreements) > 1 and agreements[-1] - agreements[-2] < gain:
        return (
            "the agreement of the labels grows no more: NMI "
            f"{agreements[-2]:.3f}, then {agreements[-1]:.3f}"
        )
    return None


class Rounds:
    """All rounds of a configuration.

    Arguments
    ---------
    load : callable
        ``load(**changes)`` builds the hyper-parameters anew, with these keys
        changed, and returns a tuple of the configuration file, its overrides
        and the hyper-parameters. (Each round needs a fresh encoder, classifier
        and gate.)
    run_opts : dict
        SpeechBrain's run options.
    """

    def __init__(self, load, run_opts):
        self.load = load
        self.run_opts = run_opts
        self.hparams = load()[-1]
        self.folder = pathlib.Path(self.hparams["output_folder"])
        self.manifest = Manifest.read(
            self.hparams["train_manifest"], self.hparams["data_folder"]
        )
        # None: SpeechBrain's Brain takes what there is, and so do we.
        self.device = run_opts["device"] or infer_device()
        self.speakers = self._read_speakers()
        self._check()
        self._look_ahead()

    def _check(self):
        """Refuses what would fail in hour three."""
        rounds = self.hparams["rounds"]
        if rounds < 1:
            raise ConfigError(f"`rounds` must be at least 1, got {rounds}")
        if self._given and rounds > 1:
            raise ConfigError(
                "labels that are given do not change from round to round: set "
                "`rounds` to 1"
            )
        if not self._given and not self.hparams["initial_model"]:
            raise ConfigError(
                "`initial_model` is needed: the output folder of a "
                "self-supervised training run, whose embeddings are clustered"
            )
        if self.hparams["start_from"] not in ("initial", "previous", "nothing"):
            raise ConfigError(
                "`start_from` is initial (every round begins with the initial "
                "model), previous or nothing; got "
                f"{self.hparams['start_from']!r}"
            )
        if self.hparams["stop_after"] not in (None, *STAGES):
            raise ConfigError(
                f"`stop_after` is one of {', '.join(STAGES)} or null; got "
                f"{self.hparams['stop_after']!r}"
            )
        if self.hparams["crops"].num_crops != 1:
            raise ConfigError(
                "training on labels takes one crop an utterance: set "
                "global_crops to 1 and local_crops to 0"
            )

    def _look_ahead(self):
        """Refuses what a later stage would, before hours of an earlier one."""
        initial = self._initial_model
        if not self._given:
            self.hparams["labels_from"].check(len(self.manifest))
            if self.hparams["stop_after"] is None:
                self.hparams["labels_from"].check_alone()
        if self._embeds:
            for model, store in self._stores(1).items():
                store.check(*load_encoder(model), **self._embed_options)
        if initial is not None:
            # Nothing is trained in this encoder: every stage makes its own.
            initialise(self.hparams["encoder"], initial)
        if self.hparams["final_stage"]:
            self.load(**self.hparams["final_stage"])

    @property
    def _given(self):
        """Whether people gave the labels: nothing is clustered."""
        return isinstance(self.hparams["labels_from"], GivenLabels)

    @property
    def _initial_model(self):
        """What the first round's training begins with, or None."""
        if self.hparams["start_from"] == "nothing":
            return None
        return self.hparams["initial_model"]

    @property
    def _embeds(self):
        """Whether embeddings are needed: to cluster, or for first centres."""
        if not self._given:
            return True
        centres = self.hparams["centres_from_embeddings"]
        return centres and self._initial_model is not None

    @property
    def _embed_options(self):
        """What an embedding depends on, besides model and audio."""
        return {
            "precision": DTYPES[self.hparams["eval_precision"]],
            "most_seconds": self.hparams["embed_most_seconds"],
        }

    def _read_speakers(self):
        """Speakers for monitoring, int64 ``[N]``, or None."""
        path = self.hparams["monitor_labels"]
        if path is None:
            return None
        column = self.hparams["monitor_column"]
        return read_labels(path, self.manifest, column)[0]

    # -- state ---------------------------------------------------------------

    @property
    def done(self):
        """What has been done: a record for each stage."""
        path = self.folder / "rounds.json"
        if not path.is_file():
            return []
        return json.loads(path.read_text(encoding="utf-8"))

    def _record(self, number, stage):
        """The record of a stage, or None if it has not been done."""
        for record in self.done:
            if (record["round"], record["stage"]) == (number, stage):
                return record
        return None

    def _do(self, number, stage):
        """Does a stage unless it is done; says whether to stop there."""
        if self._record(number, stage) is None:
            begin = time.monotonic()
            logger.info("round %d: %s", number, stage)
            figures = getattr(self, stage)(number)
            record = {
                "round": number,
                "stage": stage,
                "minutes": round((time.monotonic() - begin) / 60, 2),
                **figures,
            }
            # All have looked whether it is done before the record is there,
            # and all look again only when it is.
            ddp_barrier()
            if if_main_process():
                with atomic_write(self.folder / "rounds.json") as stream:
                    json.dump([*self.done, record], stream, indent=1)
            ddp_barrier()
            if stage == self.hparams["stop_after"]:
                logger.info(
                    "stopped after %s, as asked; the same command without "
                    "--stop_after goes on",
                    stage,
                )
                return True
        return False

    def round_folder(self, number):
        """Where a round lies."""
        return self.folder / f"round_{number}"

    def _fine_tuning_folder(self, number):
        """Where the final stage lies: after more rounds it is another one."""
        return self.folder / f"fine_tuning_{number}"

    # -- the loop --------------------------------------------------------------

    def run(self):
        """Does all that has not been done yet.

        Returns
        -------
        dict
            What ``results.json`` holds; None if stopped before the end.
        """
        last = 0
        for number in range(1, self.hparams["rounds"] + 1):
            for stage in STAGES:
                if self._do(number, stage):
                    return None
                if stage == "cluster" and self._stop(number) is not None:
                    return self._finish(last)
            last = number
        return self._finish(last)

    def _stop(self, number):
        """Why the rounds end before this one is trained, or None."""
        agreements = [
            self._record(r, "cluster")["agreement_nmi"]
            for r in range(2, number + 1)
        ]
        reason = stop_reason(
            agreements,
            self.hparams["stop_agreement"],
            self.hparams["stop_gain"],
        )
        if reason is not None:
            logger.info("no round %d: %s", number, reason)
        return reason

    def _finish(self, last):
        """The final stage, if there is one; then the results of all."""
        final = self.round_folder(last)
        if self.hparams["final_stage"]:
            if self._do(last, "fine_tune"):
                return None
            final = self._fine_tuning_folder(last)
        if not if_main_process():
            return None
        shutil.copytree(
            final / "model", self.folder / "model", dirs_exist_ok=True
        )
        results = json.loads((final / "results.json").read_text("utf-8"))
        stop = (
            self._stop(last + 1) if self._record(last + 1, "cluster") else None
        )
        results["rounds"] = last
        results["stopped"] = stop or "all rounds done"
        results["minutes"] = round(sum(r["minutes"] for r in self.done), 2)
        results["stages"] = self.done
        with atomic_write(self.folder / "results.json") as stream:
            json.dump(results, stream, indent=2)
            stream.write("\n")
        page = build_rounds_report(self.folder)
        logger.info("report: %s", page)
        return results

    # -- the stages ------------------------------------------------------------

    def _model_before(self, number):
        """The model whose embeddings a round clusters."""
        if number == 1:
            return self.hparams["initial_model"]
        return self.round_folder(number - 1)

    def _stores(self, number):
        """Model -> embeddings, of all views that are clustered."""
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
        """Embeds the training set with the model of the round before."""
        if not self._embeds:
            return {}
        bad = 0
        for model, store in self._stores(number).items():
            encoder, features = load_encoder(model, self.device)
            store.make(
                encoder,
                features,
                **self._embed_options,
                device=self.device,
                batch_seconds=self.hparams["embed_batch_seconds"],
                num_workers=self.hparams["num_workers"],
                progress=not self.run_opts["noprogressbar"],
            )
            bad += len(store.bad())
        return {"utterances": len(self.manifest), "bad": bad}

    def cluster(self, number):
        """Makes the labels of a round; figures of their quality."""
        source, seed = self.hparams["labels_from"], self.hparams["seed"]
        figures = {}
        if self._given:
            labels = source.read(self.manifest, seed)
        else:
            rows, places = self._read_share(number)
            names = _Names(self.manifest.ids, places)
            mine, figures = source(rows, seed + number, self.device, names)
            labels = self._everywhere(mine, places)
            figures |= cluster_sizes(labels[labels >= 0])
            figures |= self._quality(number, rows, labels)
        if self.speakers is not None:
            known = (labels >= 0) & (self.speakers >= 0)
            if known.any():
                figures |= against_speakers(labels[known], self.speakers[known])
        labels = keep_large(labels, self.hparams["min_cluster_size"])
        figures["labelled"] = int((labels >= 0).sum())
        if if_main_process():
            write_labels(
                self.round_folder(number) / "labels.csv", self.manifest, labels
            )
        ddp_barrier()
        logger.info(
            "round %d: %d utterances in %d clusters%s",
            number,
            figures["labelled"],
            labels.max() + 1,
            f", NMI {figures['agreement_nmi']:.3f} with the round before"
            if "agreement_nmi" in figures
            else "",
        )
        return figures

    def _read_share(self, number):
        """This process's part of the embeddings, views side by side."""
        total, ranks = len(self.manifest), distributed.world_size()
        first = total * distributed.rank() // ranks
        last = total * (distributed.rank() + 1) // ranks
        return self._read(number, first, last)

    def _read(self, number, first, last):
        """Embeddings of a stretch of utterances, and their positions."""
        read = {
            model: store.read(first, last)
            for model, store in self._stores(number).items()
        }
        # What one view lacks, all lack.
        places = np.arange(first, last)
        for _, there in read.values():
            places = np.intersect1d(places, there, assume_unique=True)
        views = {
            model: rows[np.isin(there, places, assume_unique=True)]
            for model, (rows, there) in read.items()
        }
        if len(views) == 1:
            return next(iter(views.values())), places
        names = _Names(self.manifest.ids, places)
        return join_views(views, names=names).numpy(), places

    def _everywhere(self, mine, places):
        """Labels of all processes, ``[N]``, -1 where there is none."""
        device = distributed.collective_device()
        labels = torch.full((len(self.manifest),), -1, device=device)
        labels[torch.from_numpy(places).to(device)] = torch.from_numpy(mine).to(
            device
        )
        if distributed.is_distributed():
            torch.distributed.all_reduce(labels, torch.distributed.ReduceOp.MAX)
        return labels.cpu().numpy()

    def _quality(self, number, rows, labels):
        """Label-free figures of a clustering, in the first process."""
        if not if_main_process():
            return {}
        if distributed.is_distributed():
            # Its share has but a part of most clusters.
            with distributed.alone():
                rows, _ = self._read(number, 0, len(self.manifest))
        figures = {
            "silhouette": silhouette(
                rows, labels[labels >= 0], self.hparams["silhouette_sample"]
            )
        }
        if number > 1:
            before, _ = read_labels(
                self.round_folder(number - 1) / "labels.csv", self.manifest
            )
            now, old = labels >= 0, before >= 0
            keys = self.manifest.keys
            found = agreement(keys[now], labels[now], keys[old], before[old])
            figures["agreement_nmi"] = found["nmi"]
            figures["agreement_ari"] = found["ari"]
        return figures

    def train(self, number):
        """Trains an encoder on the labels of a round."""
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
            initial_model=starts[self.hparams["start_from"]],
        )

    def fine_tune(self, number):
        """Goes on from the last round with other settings, on what it trusts.

        Large-margin fine-tuning, as a rule: longer crops, a larger margin.
        """
        before = self.round_folder(number)
        return self._train(
            self._fine_tuning_folder(number),
            before / "trusted.csv",
            number,
            initial_model=before,
            initial_classifier=str(before / "save" / "classifier.pt"),
            **self.hparams["final_stage"],
        )

    def _embedded_by(self, model, number):
        """The embeddings of the training set by the model a stage starts at."""
        for past in range(1, number + 1):
            for name, store in self._stores(past).items():
                if name == str(model):
                    return store
        raise ConfigError(
            f"there are no embeddings by {model}; set "
            "`centres_from_embeddings` to False"
        )

    def _train(self, folder, labels_csv, number, initial_model, **changes):
        """One training run; returns its figures."""
        labels, names = read_labels(labels_csv, self.manifest)
        # A stage on fewer labels keeps the classes of the round.
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
        sb.create_experiment_directory(str(folder))
        write_hyperparams(folder, path, overrides)
        # What a Brain calls its output folder is that of one stage.
        hparams["output_folder"] = str(folder)
        hparams["labels_seen"] = hparams["labels_from"].labels_seen
        brain = PseudoLabelBrain(
            modules={
                "encoder": hparams["encoder"],
                "classifier": hparams["classifier"],
            },
            opt_class=hparams["optimizer"],
            hparams=hparams,
            run_opts=self.run_opts,
            checkpointer=hparams["checkpointer"],
        )
        labelled = np.flatnonzero(labels >= 0)
        train_loader, brain.train_sampler, valid_loader = make_loaders(
            self.manifest.select(labelled),
            hparams["crops"],
            hparams["seed"] + number,
            hparams["batch_size"],
            hparams["num_workers"],
            hparams["valid_utterances"],
            hparams["valid_seconds"],
            brain.grad_accumulation_factor,
        )
        rows = _rows_of(train_loader.dataset.manifest, self.manifest)
        brain.labels = torch.from_numpy(labels[rows])
        begins = initial_model and not hparams["initial_classifier"]
        if begins and hparams["centres_from_embeddings"]:
            embedded = self._embedded_by(initial_model, number)
            set_centres(hparams["classifier"], *embedded.read(), labels)
        if self.speakers is not None:
            truth, _ = majority_classes(labels[rows], self.speakers[rows])
            brain.truth = torch.from_numpy(truth)
        brain.fit(hparams["epoch_counter"], train_loader, valid_loader)
        figures = brain.finish()
        if if_main_process():
            kept = np.full(len(self.manifest), -1)
            kept[rows] = np.where(brain.trusted(), labels[rows], -1)
            write_labels(folder / "trusted.csv", self.manifest, kept)
            # What follows belongs to no stage's log.
            to_file = {"filename": str(self.folder / "log.txt")}
            sb.utils.logger.setup_logging(
                sb.core.DEFAULT_LOG_CONFIG,
                {"handlers": {"file_handler": to_file}},
            )
        names = ("eer", "ci_low", "ci_high", "eer_initial")
        return {k: figures[k] for k in names if k in figures}


def set_centres(classifier, embeddings, places, labels):
    """Lets every class begin at the mean of its members' embeddings.

    A default of ours, and no part of the papers' methods: a classifier that
    begins at random needs some thousand steps before the losses of right and
    of wrong labels part, which in a small corpus is the whole round.

    Arguments
    ---------
    classifier : speechbrain_ssl.objectives.margin.AAMSoftmax
        Changed in place.
    embeddings : numpy.ndarray
        ``[n, size]``, by the model that training begins with.
    places : numpy.ndarray
        int64 ``[n]``, where they stand in the manifest.
    labels : numpy.ndarray
        int64 ``[N]``, class of each utterance of the manifest; -1 for none.
    """
    here = labels[places]
    # All processes have the same rows here.
    rows = unit_rows(embeddings[here >= 0], alone=True)
    means = rows.new_zeros(classifier.classes, rows.shape[1])
    means.index_add_(0, torch.from_numpy(here[here >= 0]), rows)
    means = torch.nn.functional.normalize(means, dim=1)
    means = means.to(classifier.weight.device)
    weight = classifier.weight.data.unflatten(
        0, (classifier.classes, classifier.sub_centres)
    )
    # Sub-centres of a class must differ, or they stay one for ever; a class of
    # which no embedding is known keeps its random direction.
    known = means.norm(dim=1) > 0.5
    weight[known] = weight[known] + means[known, None]


class _Names:
    """IDs of some utterances, looked up when an error has to name one."""

    def __init__(self, ids, places):
        self.ids, self.places = ids, places

    def __len__(self):
        return len(self.places)

    def __getitem__(self, i):
        return self.ids[int(self.places[i])]


def _rows_of(part, whole):
    """Positions of a part's utterances in the whole manifest."""
    order = np.argsort(whole.keys)
    return order[np.searchsorted(whole.keys, part.keys, sorter=order)]
