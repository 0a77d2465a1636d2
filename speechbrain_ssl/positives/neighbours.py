"""Find the clusters nearest to each cluster."""

import torch

from speechbrain_ssl.clustering.kmeans import similarity_blocks


@torch.no_grad()
def nearest_clusters(centroids, sizes, count):
    """Find, for each cluster, the others with the highest centroid cosine.

    Arguments
    ---------
    centroids : torch.Tensor
        float32 ``[K, size]``, of unit norm.
    sizes : torch.Tensor
        int64 ``[K]``, the number of members; an empty cluster is never a
        neighbour.
    count : int
        Number of neighbours, below K.

    Returns
    -------
    torch.Tensor
        int64 ``[K, count]``, the nearest first; filled with -1 if there are
        fewer neighbours.

    Example
    -------
    >>> corners = torch.nn.functional.normalize(
    ...     torch.tensor([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]), dim=1
    ... )
    >>> nearest_clusters(corners, torch.tensor([5, 5, 5]), 1).tolist()
    [[1], [0], [1]]
    """
    numbers = torch.arange(len(centroids), device=centroids.device)
    near = torch.empty(len(centroids), count, dtype=torch.int64).to(numbers)
    # In blocks, since all cosines of 25 000 clusters would take 2.5 GB.
    for part, cosines in similarity_blocks(centroids, centroids):
        cosines.masked_fill_(sizes == 0, -torch.inf)
        cosines.scatter_(1, numbers[part, None], -torch.inf)
        best, which = cosines.topk(count, dim=1)
        near[part] = which.masked_fill(best == -torch.inf, -1)
    return near
