"""Embeddings of utterances seen in several ways, as voice and face, in one row.

Each view is normalised by itself and the views are concatenated. The cosine of
two utterances is then the mean of their cosines in the views, and none wins by
the size of its numbers or of its dimension. How paper 1 joins audio and face is
not public; this is our own reading.
"""

import math

import torch

from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows


def join_views(views, names=None, device=None):
    """Concatenate views so that cosines become means of cosines.

    Arguments
    ---------
    views : dict
        Name of the view to embeddings ``[N, d_v]``; row ``i`` of all of them
        is one utterance.
    names : sequence of str, optional
        ``[N]``, keys of the utterances, to name the one at fault.
    device : str or torch.device, optional
        Where the joined rows shall be.

    Returns
    -------
    torch.Tensor
        float32 ``[N, sum of d_v]``, of length one.

    Raises
    ------
    ClusteringError
        If there is no view, the numbers of rows differ, or a row of a view
        (which is named) has no direction.

    Example
    -------
    >>> voice = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> face = torch.tensor([[5.0, 0.0], [0.0, 5.0]])
    >>> joined = join_views({"voice": voice, "face": face})
    >>> round(float(joined[0] @ joined[1]), 4)
    0.5
    """
    if not views:
        raise ClusteringError("there is no view to cluster")
    counts = {name: len(rows) for name, rows in views.items()}
    if len(set(counts.values())) > 1:
        raise ClusteringError(
            f"the views are of different utterances; rows: {counts}"
        )
    length, parts = math.sqrt(1 / len(views)), []
    for name, rows in views.items():
        try:
            unit = unit_rows(rows, names, device)
        except ClusteringError as error:
            raise ClusteringError(f"view {name!r}: {error}") from error
        parts.append(unit.mul_(length))
    return torch.cat(parts, dim=1)
