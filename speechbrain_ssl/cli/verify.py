"""The command ``speechbrain-ssl verify a.wav b.wav``."""

import dataclasses

from speechbrain_ssl.cli.common import decision_lines, load_model_of
from speechbrain_ssl.speakers.files import Checked, Reading
from speechbrain_ssl.verification.calibration import bayes_threshold


def run(options):
    """Compare two recordings.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.parser``.

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
    # Raise for an impossible prior, and for a missing file, before a model is
    # fetched.
    bayes_threshold(options.p_target)
    names = [options.first, options.second]
    reading = Reading(trim_silence=options.trim_silence)
    files = Checked(names, names, reading)
    files.require_all()
    found = load_model_of(options).compare(
        files, options.threshold, options.p_target, reading
    )
    who = None
    if found.same is not None:
        who = "one speaker" if found.same else "two speakers"
    lines = [*decision_lines(found, who), *found.notes]
    return {**dataclasses.asdict(found), "files": names}, lines
