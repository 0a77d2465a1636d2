"""Finish a training run: export the encoder, evaluate it, write the report.

``TrainingBrain.finish`` calls ``conclude``, on the main process only.
"""

import json
import logging
import pathlib

import numpy as np

from speechbrain_ssl.brains import divergence
from speechbrain_ssl.embedding.halves import embed_halves
from speechbrain_ssl.encoders.face import PixelNormalization
from speechbrain_ssl.precision import describe
from speechbrain_ssl.publishing.bundle import threshold_of
from speechbrain_ssl.publishing.export import export_encoder
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.report.results import gpu_name, write_results
from speechbrain_ssl.verification.label_free_threshold import (
    FEW,
    label_free_threshold,
)
from speechbrain_ssl.verification.protocol import write_scores

logger = logging.getLogger(__name__)


def conclude(brain):
    """Export the encoder, evaluate it on trials, and write the report.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.training_brain.TrainingBrain
        The Brain after training, with averaged weights in its encoder.

    Returns
    -------
    dict
        The content of ``results.json``.
    """
    folder = pathlib.Path(brain.hparams.output_folder)
    encoder, monitor = brain.evaluated_encoder, brain.trials
    held_out = _held_out_halves(brain)
    label_free = label_free_threshold(held_out["halves"]) if held_out else {}

    def export(metrics):
        export_encoder(
            folder / "model",
            encoder,
            brain.features,
            *threshold_of(None, metrics),
        )

    # Before the trials, whose files may be missing after days of training.
    export(label_free)
    metrics, drawn, mapped = {}, None, None
    if monitor is not None:
        scores, embeddings = monitor.score(
            encoder, brain.features, brain.device
        )
        metrics = monitor.metrics(scores)
        metrics.update(monitor.baselines(brain.features, brain.device))
        metrics.update(brain.extra_metrics(scores))
        export(metrics)
        trials = monitor.trials
        drawn = {
            monitor.name: {
                "scores": scores,
                "labels": trials.labels,
                "threshold": metrics["threshold"],
            }
        }
        mapped = {
            "embeddings": embeddings,
            "names": trials.names,
            "groups": np.array([monitor.speaker_of(n) for n in trials.names]),
            "group_name": "speaker",
        }
        write_scores(folder / "trial_scores.txt", trials, scores)
        logger.info(
            "%s: EER %.2f %% [%.2f, %.2f]; without training: statistics "
            "%.2f %%, untrained encoder %.2f %%",
            monitor.name,
            metrics["eer"],
            metrics["ci_low"],
            metrics["ci_high"],
            metrics["eer_statistics"],
            metrics["eer_untrained"],
        )
    path = write_results(
        folder,
        metrics,
        seed=brain.hparams.seed,
        seconds=brain.seconds(),
        extra={
            "epochs": brain.epoch_reached,
            "effective_batch": brain.effective_batch,
            **label_free,
            **describe(vars(brain.hparams)),
            **brain.extra_results(),
            **divergence.results(brain),
        },
        labels_seen=brain.labels_seen,
        gpu=gpu_name(brain.device),
    )
    if held_out:
        held_out["threshold"] = label_free["label_free_threshold"]
    page = build_report(
        folder,
        schedules=brain.schedules,
        trials=drawn,
        embeddings=mapped,
        held_out=held_out,
    )
    logger.info("report: %s", page)
    return json.loads(path.read_text(encoding="utf-8"))


def _held_out_halves(brain):
    """Embed the halves of the held-out utterances.

    Returns
    -------
    dict
        ``names`` and ``halves``, ``[N, 2, size]``, of the utterances that can be
        read; empty if these are fewer than two, or pictures.
    """
    if isinstance(brain.features, PixelNormalization):
        return {}  # A picture has no halves.
    manifest = brain.held_out_manifest
    # A damaged file must not keep a finished run from its export.
    bad = []
    halves = embed_halves(
        brain.evaluated_encoder,
        brain.features,
        [manifest.path(i) for i in range(len(manifest))],
        manifest.durations,
        bad=bad,
        device=brain.device,
        num_workers=brain.hparams.num_workers,
        progress=False,
    )
    if bad:
        logger.warning(
            "%d of %d held-out files cannot be read in full and do not count "
            "for the threshold without labels; the first: %s",
            len(bad),
            len(halves),
            bad[0][1],
        )
    usable = np.flatnonzero(np.isfinite(halves).all(axis=(1, 2)))
    if len(usable) < FEW:
        logger.warning(
            "a reliable threshold needs %d held-out utterances, and this run "
            "has %d; make one from as many recordings with `speechbrain-ssl "
            "threshold FOLDER --model=%s`",
            FEW,
            len(usable),
            brain.hparams.output_folder,
        )
    if len(usable) < 2:
        return {}
    names = [manifest.ids[i] for i in usable]
    return {"names": names, "halves": halves[usable]}
