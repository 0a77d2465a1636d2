"""The command ``speechbrain-ssl score trials.txt --output=scores.txt``."""

import os

import numpy as np

from speechbrain_ssl.cli.common import check_output, load_model_of
from speechbrain_ssl.errors import ConfigError, counted
from speechbrain_ssl.speakers.files import Checked
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.protocol import check_files, write_scores
from speechbrain_ssl.verification.scoring import cosine_scores
from speechbrain_ssl.verification.trial_layouts import read_enrolment
from speechbrain_ssl.verification.trials import Trials, read_trials


def run(options):
    """Score a list of trials.

    A line of the output has the trial in VoxCeleb's layout and the score, which
    is ``nan`` if a recording of the trial cannot be used.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.parser``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: ``output``, ``trials``, ``scored``,
        ``recordings`` (numbers), ``eer_percent`` (None where the list lacks
        labels of both kinds), ``kind`` of the scores, ``unusable`` (recording
        to reason), ``notes``; and the lines for a reader.

    Raises
    ------
    TrialError
        If the list is malformed, or names a file that does not exist.
    ConfigError
        If ``--llr`` is given and the model has no calibration.
    """
    check_output(options.output)
    enrolment = None
    if options.enrolment is not None:
        enrolment = read_enrolment(options.enrolment)
    trials = read_trials(
        options.trials,
        require_both=False,
        layout=options.layout,
        enrolment=enrolment,
    )
    check_files(trials, options.audio_folder)
    model = load_model_of(options)
    if options.llr and model.calibration is None:
        raise ConfigError(
            f"--llr: {options.model} has no calibration.json; leave --llr out "
            "for cosines"
        )
    paths = [os.path.join(options.audio_folder, n) for n in trials.recordings]
    files = Checked(trials.recordings, paths, options)
    scores = _scores(files, model, trials, options)
    if options.llr:
        scores = model.calibration(scores)
    write_scores(options.output, trials, scores)
    scored = np.isfinite(scores)
    rate = None
    if trials.labels is not None:
        labels = trials.labels[scored]
        if 0 < labels.sum() < len(labels):
            rate = 100 * eer(scores[scored], labels)[0]
    found = {
        "output": options.output,
        "trials": len(trials),
        "scored": int(scored.sum()),
        "recordings": len(trials.recordings),
        "kind": "log-likelihood ratio" if options.llr else "cosine",
        "eer_percent": rate,
        "unusable": files.unusable,
        "notes": files.notes,
    }
    lines = [
        f"{found['scored']} of {counted(len(trials), 'trial')} scored: "
        f"{options.output}",
        *files.notes,
    ]
    if rate is not None:
        lines.insert(1, f"EER {rate:.2f} %")
    return found, lines


def _scores(files, model, trials, options):
    """Compute cosines ``[T]``; NaN where a side of the trial is unusable."""
    found = files.embed(model, options)
    row = {name: i for i, name in enumerate(files.names)}
    rows = np.full((len(trials.recordings), found.shape[1]), np.nan)
    there = np.array([name in row for name in trials.recordings])
    rows[there] = found[[row[n] for n in trials.recordings if n in row]]
    rows = trials.pool(rows)
    usable = np.isfinite(rows).all(axis=1)
    scored = usable[trials.left] & usable[trials.right]
    scores = np.full(len(trials), np.nan)
    if scored.any():
        # Unusable rows have no direction; no trial that is scored uses them.
        part = Trials(
            None, trials.left[scored], trials.right[scored], trials.names
        )
        rows[~usable] = 1.0
        scores[scored] = cosine_scores(rows, part)
    return scores
