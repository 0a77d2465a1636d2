"""Join several views of the same utterances, such as voice and face.

Each view is normalised separately, and the views are concatenated. The cosine
of two utterances is then the mean of their cosines in the views, and no view
dominates by the scale of its values or by its dimension. How Han, Chen and Qian
(2023, arXiv 2304.05754) join audio and face is not public; this is our own
reading.

An utterance may lack a view. Its row then consists of the views that it has,
and of zeros: two utterances without a face have the cosine of their voices. With
an utterance that has a face, however, even one of the same voice has a cosine of
at most the square root of one half, and a speaker some of whose utterances lack
a face is split. After clustering, ``reassign`` therefore gives each utterance
without a face to the cluster whose voice is nearest.
"""

import numpy as np
import torch

from speechbrain_ssl import distributed
from speechbrain_ssl.clustering.rows import ClusteringError, unit_rows

# Number of rows that are compared with all centroids at a time.
_STEP = 4096


def join_views(views, names=None, device=None, there=None):
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
    there : dict, optional
        bool ``[N]`` by view, for views that some utterances lack. Every
        utterance has at least one view.

    Returns
    -------
    torch.Tensor
        float32 ``[N, sum of d_v]``, of unit norm.

    Raises
    ------
    ClusteringError
        If there is no view, the numbers of rows differ, or a row that is there
        is zero or not finite; the message names the view.

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
    parts, count = [], 0
    for name, rows in views.items():
        here = None if there is None else there.get(name)
        try:
            parts.append(_unit(rows, names, device, here))
        except ClusteringError as error:
            raise ClusteringError(f"view {name!r}: {error}") from error
        count += parts[-1].square().sum(dim=1, keepdim=True)
    return torch.cat(parts, dim=1) / count.sqrt()


def _unit(rows, names, device, here):
    """Normalise the rows that are there, and set the others to zero."""
    if here is None:
        return unit_rows(rows, names, device)
    chosen = np.flatnonzero(here)
    if names is not None:
        names = [names[i] for i in chosen]
    unit = unit_rows(rows[chosen], names, device)
    whole = unit.new_zeros(len(rows), unit.shape[1])
    whole[torch.from_numpy(chosen).to(unit.device)] = unit
    return whole


def reassign(rows, labels, lacking):
    """Give utterances that lack a view to the cluster nearest in another view.

    Every process calls it with its own utterances.

    Arguments
    ---------
    rows : torch.Tensor or numpy.ndarray
        The view that all utterances have, ``[n, d]``.
    labels : numpy.ndarray
        Their clusters, int64 ``[n]``.
    lacking : numpy.ndarray
        bool ``[n]``: the utterances to assign anew. All others keep their
        cluster.

    Returns
    -------
    numpy.ndarray
        int64 ``[n]``. The centroids are the means of all members' unit rows
        before the assignment, so a cluster of utterances that lack the view
        competes with the others.

    Example
    -------
    >>> voices = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> lacking = np.array([False, True, False, False])
    >>> reassign(voices, np.array([0, 1, 1, 1]), lacking).tolist()
    [0, 0, 1, 1]
    """
    unit = unit_rows(rows)
    own = torch.from_numpy(labels).to(unit.device)
    highest = own.max()
    if distributed.is_distributed():
        torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
    sums = unit.new_zeros(int(highest) + 1, unit.shape[1])
    sums = distributed.sum_over_ranks(sums.index_add_(0, own, unit))
    centroids = torch.nn.functional.normalize(sums, dim=1)
    found = labels.copy()
    for places in np.array_split(
        np.flatnonzero(lacking), 1 + lacking.sum() // _STEP
    ):
        nearest = (unit[places] @ centroids.T).argmax(dim=1)
        found[places] = nearest.cpu().numpy()
    return found
