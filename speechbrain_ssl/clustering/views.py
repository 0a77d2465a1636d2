"""Embeddings of utterances seen in several ways, as voice and face, in one row.

Each view is normalised by itself and the views are concatenated. The cosine of
two utterances is then the mean of their cosines in the views, and none wins by
the size of its numbers or of its dimension. How paper 1 joins audio and face is
not public; this is our own reading.
"""

import math

import torch

from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows


def join_views(views, weights=None, names=None, device=None):
    """Concatenates views so that cosines become means of cosines.

    With weights ``w_v``, the cosine of two joined rows is

        sum over v of w_v * cos_v / sum over v of w_v

    Arguments
    ---------
    views : dict
        Name of the view to embeddings ``[N, d_v]``; row ``i`` of all of them
        is one utterance.
    weights : dict, optional
        Name of the view to a positive number; 1 as a default.
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
    ValueError
        If a weight is not positive or is for a view that is not there.

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
    weights = dict.fromkeys(views, 1.0) | (weights or {})
    if set(weights) != set(views) or min(weights.values()) <= 0:
        raise ValueError(
            f"one positive weight a view ({', '.join(views)}); got {weights}"
        )
    counts = {name: len(rows) for name, rows in views.items()}
    if len(set(counts.values())) > 1:
        raise ClusteringError(
            f"the views are of different utterances; rows: {counts}"
        )
    total, parts = sum(weights.values()), []
    for name, rows in views.items():
        try:
            unit = unit_rows(rows, names, device)
        except ClusteringError as error:
            raise ClusteringError(f"view {name!r}: {error}") from error
        parts.append(unit.mul_(math.sqrt(weights[name] / total)))
    return torch.cat(parts, dim=1)
