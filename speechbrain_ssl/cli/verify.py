"""The command ``speechbrain-ssl verify a.wav b.wav``."""

import argparse

import numpy as np

from speechbrain_ssl.cli.common import Checked, Model
from speechbrain_ssl.embedding.extract import MOST_SECONDS
from speechbrain_ssl.publishing.bundle import threshold_of
from speechbrain_ssl.verification.calibration import bayes_threshold


def run(options):
    """Compare two recordings.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.main``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: ``score`` (cosine), ``llr`` (None
        without a calibration), ``threshold`` and ``threshold_from``, ``same``
        (None without a threshold), ``files``, ``notes``; and the lines for a
        reader.

    Raises
    ------
    AudioError
        If one of the two cannot be used.
    """
    # Raise for an impossible prior before a model is fetched.
    bayes_threshold(options.p_target)
    names = [options.first, options.second]
    quiet = argparse.Namespace(
        jobs=2,
        quiet=True,
        batch_seconds=MOST_SECONDS,
        trim_silence=options.trim_silence,
    )
    files = Checked(names, names, quiet)
    files.require_all()
    model = Model(options)
    rows = files.embed(model, quiet).astype(np.float64)
    files.require_all()
    left, right = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    score = float(left @ right)
    llr = None if model.calibration is None else model.calibration(score)
    if options.threshold is not None:
        threshold, why = options.threshold, "given with --threshold"
    else:
        threshold, why = threshold_of(
            model.calibration, model.results, options.p_target
        )
    same = None if threshold is None else bool(score > threshold)
    lines = [f"score (cosine)        {score:.4f}"]
    if llr is not None:
        lines.append(f"log-likelihood ratio  {llr:.2f}")
    if same is None:
        lines.append(
            "decision              none: the model has no threshold; give one "
            "with --threshold"
        )
    else:
        who = "one speaker" if same else "two speakers"
        lines.append(
            f"decision              {who} (threshold {threshold:.4f}: {why})"
        )
    lines += files.notes
    found = {
        "score": score,
        "llr": llr,
        "threshold": threshold,
        "threshold_from": why,
        "same": same,
        "files": names,
        "notes": files.notes,
    }
    return found, lines
