"""Search the recordings that sound most like one, among many that are stored."""

import numpy as np

from speechbrain_ssl.embedding.nearest import nearest, open_columns
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.speakers.results import Matches


def identity_columns(model, trimmed):
    """Return the columns by which a file tells what its embeddings are of.

    Arguments
    ---------
    model : speechbrain_ssl.speakers.model.Model
        The model.
    trimmed : bool
        Whether silence was trimmed.

    Returns
    -------
    dict
        ``model`` (a digest) and ``trimmed``.
    """
    return {"model": np.array(model.digest), "trimmed": np.array(trimmed)}


def search(model, checked, stored, count, reading):
    """Find the stored recordings that are most like one.

    Arguments
    ---------
    model : speechbrain_ssl.speakers.model.Model
        The model.
    checked : speechbrain_ssl.speakers.files.Checked
        The recording.
    stored : str or pathlib.Path
        An ``.npz`` file that ``speechbrain-ssl embed`` wrote.
    count : int
        How many to return, at most.
    reading : Reading
        How the recording is read.

    Returns
    -------
    Matches

    Raises
    ------
    ConfigError
        If the file holds no embeddings, or those of another model.
    AudioError
        If the recording cannot be used.
    """
    if count < 1:
        raise ConfigError(f"--count={count} must be at least 1")
    columns = open_columns(stored)
    if not {"files", "embeddings", "model", "trimmed"} <= set(columns):
        raise ConfigError(
            f"{stored} lacks columns that `speechbrain-ssl embed` writes; "
            "embed the recordings again"
        )
    if str(columns["model"]) != model.digest:
        raise ConfigError(
            f"the embeddings of {stored} are another model's, so that no score "
            "would mean anything; name that model, or embed them with this one"
        )
    if bool(columns["trimmed"]) != reading.trim_silence:
        how = "with" if columns["trimmed"] else "without"
        raise ConfigError(
            f"the recordings of {stored} were embedded {how} --trim-silence; "
            f"search {how} it"
        )
    rows, notes = model.embed_all(checked, reading)
    places, scores = nearest(columns["embeddings"], rows[0], count)
    found = {
        name: columns[name][places].tolist()
        for name in ("files", "start", "end")
        if name in columns
    }
    return Matches(
        scores=scores.tolist(),
        starts=found.get("start"),
        ends=found.get("end"),
        files=found["files"],
        searched=len(columns["embeddings"]),
        notes=notes,
    )
