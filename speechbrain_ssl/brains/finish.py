"""Finish a training run: export the encoder, evaluate it, write the report.

``TrainingBrain.finish`` calls ``conclude``, on the main process only.
"""

import json
import logging
import pathlib

import numpy as np

from speechbrain_ssl.precision import describe
from speechbrain_ssl.publishing.export import export_encoder
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.report.results import gpu_name, write_results
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
    export_encoder(folder / "model", encoder, brain.features)
    metrics, drawn, mapped = {}, None, None
    if monitor is not None:
        scores, embeddings = monitor.score(
            encoder, brain.features, brain.device
        )
        metrics = monitor.metrics(scores)
        metrics.update(monitor.baselines(brain.features, brain.device))
        metrics.update(brain.extra_metrics(scores))
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
            **describe(vars(brain.hparams)),
            **brain.extra_results(),
        },
        labels_seen=brain.labels_seen,
        gpu=gpu_name(brain.device),
    )
    page = build_report(
        folder, schedules=brain.schedules, trials=drawn, embeddings=mapped
    )
    logger.info("report: %s", page)
    return json.loads(path.read_text(encoding="utf-8"))
