"""Embed both halves of utterances, each as a recording of its own.

The threshold without labels is made from them, see
``speechbrain_ssl.verification.label_free_threshold``.
"""

import numpy as np

from speechbrain_ssl.embedding.extract import (
    MOST_SECONDS,
    embed_windows,
    mean_windows,
)


def embed_halves(encoder, features, paths, seconds, bad=None, **options):
    """Embed the first and the second half of each audio file.

    Arguments
    ---------
    encoder, features, paths, seconds, bad, **options
        As in ``speechbrain_ssl.embedding.extract.embed_files``.

    Returns
    -------
    numpy.ndarray
        float32 ``[files, 2, size]``; NaN for a half that cannot be read, or
        whose silence was trimmed and left nothing.

    Raises
    ------
    ConfigError, AudioError
        As in ``embed_files``.
    """
    windows = embed_windows(
        encoder,
        features,
        paths,
        MOST_SECONDS,
        seconds,
        bad=bad,
        multiple=2,
        **options,
    )
    middles = np.asarray(seconds)[windows.files] / 2
    second = (windows.starts + windows.ends) / 2 > middles
    halves = windows._replace(files=2 * windows.files + second)
    rows = mean_windows(halves, 2 * len(paths))
    return rows.reshape(len(paths), 2, -1)
