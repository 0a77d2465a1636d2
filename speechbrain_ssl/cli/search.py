"""The command ``speechbrain-ssl search file stored.npz``."""

import dataclasses

from speechbrain_ssl.cli.common import load_model_of
from speechbrain_ssl.speakers.files import Reading


def run(options):
    """Find the stored recordings that sound most like one.

    Arguments
    ---------
    options : argparse.Namespace
        See ``speechbrain_ssl.cli.parser``.

    Returns
    -------
    tuple
        The object that ``--json`` prints: the fields of ``Matches`` and
        ``file``; and the lines for a reader.

    Raises
    ------
    ConfigError
        If the file holds no embeddings, or those of another model.
    AudioError
        If the recording cannot be used.
    """
    found = load_model_of(options).search(
        options.file,
        options.stored,
        options.count,
        Reading(trim_silence=options.trim_silence),
    )
    lines = []
    for place, (name, score) in enumerate(
        zip(found.files, found.scores, strict=True)
    ):
        when = ""
        if found.starts is not None:
            when = f"\t{found.starts[place]:.2f}-{found.ends[place]:.2f} s"
        lines.append(f"{score:.4f}\t{name}{when}")
    return {**dataclasses.asdict(found), "file": options.file}, [
        *lines,
        *found.notes,
    ]
