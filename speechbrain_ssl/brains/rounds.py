"""Run rounds of pseudo-labelling: embed, cluster, train, repeat.

    model 0 = the self-supervised encoder
    round r:  embed     the training set with model r - 1
              cluster   the embeddings: these are the labels of round r
              train     an encoder on them, behind a loss gate: model r

This file is the loop over rounds; ``stages`` implements the three stages, and
``pseudo_label_brain`` the training. A record of each finished stage is added to
``rounds.json``, and only stages without a record are run. A run that was killed
therefore restarts the stage it was in, and that stage resumes by itself, from
the shards of embeddings or the checkpoints of training.

    output_folder/
        rounds.json, results.json, report.html, model/     from the kept stage
        round_1/
            embeddings/      shards of the training set, by model 0
            labels.csv       utterance and cluster
            trusted.csv      the utterances that the gate kept at the end
            metrics.jsonl, results.json, report.html, model/, gate/, save/

A stage that made the model worse is not kept: ``model/`` is then what it started
from, and the loop ends, since the next labels would be made with the worse model.
Whether it did is decided without labels (``verdict``).

Speaker labels are used only for metrics whose names begin with ``monitor_``.
"""

import json
import logging
import pathlib
import shutil
import time

from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    infer_device,
)

from speechbrain_ssl import precision
from speechbrain_ssl.brains.stages import Stages
from speechbrain_ssl.data.loaders import fit_to_corpus
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.publishing.export import initialise, load_encoder
from speechbrain_ssl.publishing.hub import find_model, find_record
from speechbrain_ssl.publishing.record import read_record
from speechbrain_ssl.report.results import FILE_NAME as RESULTS
from speechbrain_ssl.report.rounds import build_rounds_report
from speechbrain_ssl.run_folder import check_folder, resume_batch
from speechbrain_ssl.verification.label_free_comparison import WORSE, in_words

logger = logging.getLogger(__name__)

STAGES = ("embed", "cluster", "train")


def stop_reason(agreements, least, gain):
    """Return why no further round is worthwhile, or None; needs no labels.

    Arguments
    ---------
    agreements : list of float
        NMI (normalised mutual information) between the labels of each round,
        from the second on, and those of the previous round.
    least : float
        Stop if the last agreement is at least this high: another training
        would change little.
    gain : float
        Stop, too, if the agreement has grown by less than this since the
        previous round.

    Returns
    -------
    str or None
        The reason to stop.

    Example
    -------
    >>> stop_reason([0.90], least=0.98, gain=0.0)
    >>> stop_reason([0.90, 0.985], least=0.98, gain=0.0)
    'the labels agree with those of the previous round: NMI 0.985'
    """
    if not agreements:
        return None
    if agreements[-1] >= least:
        return (
            "the labels agree with those of the previous round: NMI "
            f"{agreements[-1]:.3f}"
        )
    if len(agreements) > 1 and agreements[-1] - agreements[-2] < gain:
        return (
            "the agreement of the labels no longer grows: NMI "
            f"{agreements[-2]:.3f}, then {agreements[-1]:.3f}"
        )
    return None


class Rounds:
    """Runs all rounds of a configuration, and resumes them.

    Arguments
    ---------
    load : callable
        ``load(**changes)`` builds new hyper-parameters, with these keys
        changed, and returns a tuple of configuration file, overrides and
        hyper-parameters. Each round calls it for a new encoder, classifier and
        gate.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's run options.

    Raises
    ------
    UserError
        If a setting or an input would make a later stage fail.
    """

    #: What implements the stages.
    stages_class = Stages

    def __init__(self, load, run_opts):
        def resumed(**changes):
            path, overrides, hparams = load(**changes)
            precision.resume(hparams, run_opts)
            resume_batch(hparams)
            return path, overrides, hparams

        self.load = resumed
        self.run_opts = run_opts
        self.hparams = resumed()[-1]
        self.folder = pathlib.Path(self.hparams["output_folder"])
        self.manifest = Manifest.read(
            self.hparams["train_manifest"], self.hparams["data_folder"]
        )
        # What is held out must be the same in every round, and in the verdict.
        fit_to_corpus(self.hparams, self.manifest)
        # Without a device, choose the same one as SpeechBrain's Brain.
        device = run_opts["device"] or infer_device()
        self.stages = self.stages_class(
            self.load,
            self.hparams,
            run_opts,
            self.manifest,
            self.folder,
            device,
        )
        self._check()
        self._look_ahead()

    def _check(self):
        """Validate settings that would otherwise fail hours into the run."""
        rounds = self.hparams["rounds"]
        if rounds < 1:
            raise ConfigError(f"`rounds` must be at least 1, got {rounds}")
        if self.stages.labels_are_given and rounds > 1:
            raise ConfigError(
                "given labels do not change from round to round: set "
                "`rounds` to 1"
            )
        if (
            not self.stages.labels_are_given
            and not self.hparams["initial_model"]
        ):
            raise ConfigError(
                "`initial_model` is needed: the output folder of a "
                "self-supervised training run, whose embeddings are clustered"
            )
        if self.hparams["start_from"] not in ("initial", "previous", "nothing"):
            raise ConfigError(
                "`start_from` is initial (every round starts from the initial "
                "model), previous or nothing; got "
                f"{self.hparams['start_from']!r}"
            )
        if self.hparams["stop_after"] not in (None, *STAGES):
            raise ConfigError(
                f"`stop_after` is one of {', '.join(STAGES)} or null; got "
                f"{self.hparams['stop_after']!r}"
            )
        least = self.hparams["min_cluster_size"]
        most = self.hparams["max_cluster_size"]
        if most is not None and most < least:
            raise ConfigError(
                f"no cluster has from {least} to {most} members: set "
                "`max_cluster_size` above `min_cluster_size`, or to null"
            )
        if self.hparams["crops"].num_crops != 1:
            raise ConfigError(
                "training on labels takes one crop an utterance: set "
                "global_crops to 1 and local_crops to 0"
            )

    def _look_ahead(self):
        """Check the inputs of later stages before the first one takes hours.

        Everything is built or opened once and thrown away: the number of
        clusters, the embeddings on disk, the weights of the initial model, and
        the configuration of the final stage.
        """
        initial = self.stages.initial_model
        if not self.stages.labels_are_given:
            self.hparams["labels_from"].check(len(self.manifest))
            if self.hparams["stop_after"] is None:
                self.hparams["labels_from"].check_alone()
        if self.stages.needs_embeddings:
            for model, store in self.stages.stores(1).items():
                store.check(*load_encoder(model), **self.stages.embed_options)
        if initial is not None:
            # Only a check that the weights fit: every stage makes its own
            # encoder.
            initialise(
                self.hparams["encoder"], initial, self.hparams["features"]
            )
        for changes in self.stages.final_stages:
            self.load(**changes)

    # -- state ---------------------------------------------------------------

    @property
    def done(self):
        """The records of all finished stages, read from ``rounds.json``."""
        path = self.folder / "rounds.json"
        if not path.is_file():
            return []
        return json.loads(path.read_text(encoding="utf-8"))

    def _record(self, number, stage, **place):
        """Return the record of a stage, or None if it is not finished."""
        wanted = {"round": number, "stage": stage, **place}
        for record in self.done:
            if record.items() >= wanted.items():
                return record
        return None

    def _do(self, number, stage, **place):
        """Run a stage unless it is finished; return whether to stop then."""
        if self._record(number, stage, **place) is None:
            begin = time.monotonic()
            logger.info("round %d: %s", number, stage)
            metrics = getattr(self.stages, stage)(number, **place)
            record = {
                "round": number,
                "stage": stage,
                **place,
                "minutes": round((time.monotonic() - begin) / 60, 2),
                **metrics,
            }
            # Every process must read the old file before rank 0 replaces it,
            # and the new one only after that.
            ddp_barrier()
            check_folder(self.folder)
            if if_main_process():
                with atomic_write(self.folder / "rounds.json") as stream:
                    json.dump([*self.done, record], stream, indent=1)
            ddp_barrier()
            if "verdict" in record:
                logger.info("round %d, %s: %s", number, stage, in_words(record))
            if stage == self.hparams["stop_after"]:
                logger.info(
                    "stopped after %s, as asked; run the same command without "
                    "--stop_after to continue",
                    stage,
                )
                return True
        return False

    # -- the loop --------------------------------------------------------------

    def run(self):
        """Run all stages that are not finished yet.

        Returns
        -------
        dict
            The content of ``results.json``; None on other processes than the
            main one, and if ``stop_after`` ended the run early.
        """
        last = 0
        for number in range(1, self.hparams["rounds"] + 1):
            for stage in STAGES:
                if self._do(number, stage):
                    return None
                if stage == "cluster" and self._stop(number) is not None:
                    return self._finish(last)
            last = number
            if self._is_worse(number):
                break
        return self._finish(last)

    def _is_worse(self, number):
        """Return whether training in a round has made the model worse."""
        return self._record(number, "train").get("verdict") == WORSE

    def _stop(self, number):
        """Return why this round is not worth training, or None."""
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
        """Run the final stages, if configured, and write the results of all.

        They and the results are those of the last round that is kept. A final
        stage that makes the model worse is not kept and ends them.
        """
        kept = last - 1 if self._is_worse(last) else last
        final = self.stages.round_folder(kept)
        judged = self._record(last, "train")
        places = range(1, len(self.stages.final_stages) + 1) if kept else ()
        for place in places:
            self._do(kept, "fine_tune", place=place)
            judged = self._record(kept, "fine_tune", place=place)
            if judged.get("verdict") == WORSE:
                break
            final = self.stages.fine_tuning_folder(kept, place)
        if not if_main_process():
            return None
        if kept:
            model, path = final / "model", final / RESULTS
        else:
            model = find_model(self.hparams["initial_model"])
            path = find_record(self.hparams["initial_model"], RESULTS)
        # It may be from an earlier call with fewer rounds.
        shutil.rmtree(self.folder / "model", ignore_errors=True)
        shutil.copytree(model, self.folder / "model")
        results = {} if path is None else read_record(path)
        results.setdefault("labels_seen", "unknown")
        results["model_from"] = final.name if kept else "the initial model"
        results["why"] = _why(judged)
        stop = (
            self._stop(last + 1) if self._record(last + 1, "cluster") else None
        )
        if kept < last:
            stop = f"round {last} has made the model worse"
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


def _why(record):
    """Say what the last comparison with a start has found."""
    what = "fine-tuning" if record["stage"] == "fine_tune" else "training"
    if "verdict" not in record:
        return (
            f"{what} is not judged: its labels are given, or too few "
            "utterances are held out"
        )
    return f"{what} of round {record['round']}: {in_words(record)}"
