"""Group embeddings of recordings by speaker, of a known number or not."""

from speechbrain_ssl.clustering.agglomerative import (
    kmeans_then_merge,
    merge_centroids,
)
from speechbrain_ssl.clustering.choice import choose_k
from speechbrain_ssl.errors import ConfigError

# Up to this many files all pairs are compared, in 0.8 GB.
_ALL_PAIRS = 10_000


def find_speakers(embeddings, speakers=None):
    """Cluster by average linkage of cosines.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[N, size]``, one for each recording.
    speakers : int, optional
        Number of speakers; that of the best silhouette if not given.

    Returns
    -------
    numpy.ndarray
        ``[N]``, the number of each recording's speaker, from 0.

    Raises
    ------
    ConfigError
        If there are fewer recordings than speakers, or too few to estimate
        their number.
    """
    count = len(embeddings)
    if speakers is None:
        if count < 4:
            raise ConfigError(
                f"{count} usable files are too few to estimate the number of "
                "speakers; give it with --speakers"
            )
        speakers = choose_k(embeddings, candidates(count)).clusters
    if speakers > count:
        raise ConfigError(
            f"--speakers={speakers}, but there are only {count} usable files"
        )
    if count <= _ALL_PAIRS:
        return merge_centroids(embeddings, speakers, linkage="average").numpy()
    found = kmeans_then_merge(
        embeddings,
        max(_ALL_PAIRS // 2, speakers),
        speakers,
        linkage="average",
        init="k-means++",
    )
    return found.assignments.cpu().numpy()


def candidates(count):
    """List the numbers of speakers to compare for a number of files.

    They rise from 2 to half the files, by a tenth each, since a speaker with a
    single file cannot be recognised as one.

    Example
    -------
    >>> candidates(12), len(candidates(1000))
    ([2, 3, 4, 5, 6], 50)
    """
    found = [2]
    while found[-1] < count // 2:
        found.append(max(found[-1] + 1, round(found[-1] * 1.1)))
    return [number for number in found if number <= count // 2]
