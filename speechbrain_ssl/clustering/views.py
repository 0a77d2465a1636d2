"""Join several views of the same utterances, such as voice and face.

Each view is normalised separately, and the views are concatenated. The cosine
of two utterances is then the mean of their cosines in the views, and no view
dominates by the scale of its values or by its dimension. How Han, Chen and Qian
(2023, arXiv 2304.05754) join audio and face is not public; this is our own
reading.
"""

import math

import torch

from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows


def join_views(views, names=None, device=None):
    """Concatenate views so that cosines become means of cosines.

    Arguments
    ---------
    views : dict
        Maps the name of each view to its embeddings ``[N, d_v]``; row ``i`` of
        every view belongs to the same utterance.
    names : sequence of str, optional
        ``[N]``, keys of the utterances, for error messages.
    device : str or torch.device, optional
        Device of the joined rows.

    Returns
    -------
    torch.Tensor
        float32 ``[N, sum of d_v]``, of unit norm.

    Raises
    ------
    ClusteringError
        If there is no view, the numbers of rows differ, or a row of a view is
        zero or not finite; the message names the view.

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
            f"the views have different utterances; numbers of rows: {counts}"
        )
    length, parts = math.sqrt(1 / len(views)), []
    for name, rows in views.items():
        try:
            unit = unit_rows(rows, names, device)
        except ClusteringError as error:
            raise ClusteringError(f"view {name!r}: {error}") from error
        parts.append(unit.mul_(length))
    return torch.cat(parts, dim=1)
