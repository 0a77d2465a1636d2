"""Positives from given clusters, such as those of faces.

Two recordings of one person differ in room, microphone and words, and often in
mood: crops from both are more diverse positives than crops of one recording. A
face can tell that they are of one person where the voice cannot yet. The first
crop of a sample is therefore cut from its own utterance, and every other crop
from an utterance of the same cluster and another recording, drawn uniformly.
The clusters are read from a file and stay as they are. All of this is ours; no
published recipe of this kind is known to us.

A recording is what the IDs have in common up to their last slash: the video in
VoxCeleb's ``id00012/21Uxsk56VDQ/00001``. An ID without a slash is a recording of
its own. An utterance that has no cluster, or none with another recording, keeps
all of its crops.
"""

import numpy as np
import torch

from speechbrain_ssl.checks import check_int
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.errors import ConfigError


class GivenClusters(torch.nn.Module):
    """Draw the utterances that crops are cut from, by clusters in a file.

    Arguments
    ---------
    clusters_csv : str
        A CSV file with the columns ``ID`` and ``label``, as ``cluster_faces.py``
        and the rounds of pseudo-labels write it. Utterances that it does not
        name have no cluster. If the labels are of people, training sees them.
    start_epoch : int
        First epoch with crops of several utterances.

    Raises
    ------
    ConfigError
        If no file is given, or the epoch is no whole number from 1.

    Example
    -------
    >>> rule = GivenClusters("face_clusters.csv")
    >>> rule.set_up(np.array([0, 0, 0]), ["v1/a", "v1/b", "v2/c"], seed=0)
    >>> rule.pseudo_positives(1, 0, key=7, crops=3, global_crops=2).tolist()
    [0, 2, 2]
    """

    def __init__(self, clusters_csv, start_epoch=1):
        super().__init__()
        check_int("GivenClusters", "start_epoch", start_epoch, least=1)
        if not clusters_csv:
            raise ConfigError(
                "positives from given clusters need a CSV file with the columns "
                "ID and label: set `clusters_csv`"
            )
        self.clusters_csv = clusters_csv
        self.start_epoch = start_epoch
        # Rebuild the tables after a checkpoint restores the clusters.
        self.register_load_state_dict_post_hook(_tabulate)

    def set_up(self, clusters, ids, seed):
        """Take the clusters of the training set.

        Called once, before a checkpoint is read.

        Arguments
        ---------
        clusters : numpy.ndarray
            The cluster of each utterance, int64 ``[N]``; -1 for none.
        ids : sequence of str
            Their IDs, which name the recordings.
        seed : int
            The run's seed.

        Raises
        ------
        ConfigError
            If no cluster has two recordings.
        """
        self.seed = seed
        folders = [key.rpartition("/")[0] or key for key in ids]
        self._recordings = np.unique(folders, return_inverse=True)[1]
        self.register_buffer("clusters", torch.from_numpy(clusters))
        _tabulate(self)
        if not self._others.any():
            raise ConfigError(
                f"{self.clusters_csv}: no cluster has utterances of two "
                "recordings (what IDs have in common up to their last slash); "
                "make fewer clusters, or take other positives"
            )

    def pseudo_positives(self, epoch, index, key, crops, global_crops):
        """Draw the utterance of each crop of a sample.

        Arguments
        ---------
        epoch : int
            Counted from 1.
        index : int
            Position of the anchor in the manifest.
        key : int
            The anchor's key, which seeds its draws.
        crops : int
            Number of crops per sample.
        global_crops : int
            Number of global crops; not used.

        Returns
        -------
        numpy.ndarray
            Positions in the manifest, int64 ``[crops]``.
        """
        chosen = np.full(crops, index, dtype=np.int64)
        if epoch < self.start_epoch or not self._others[index]:
            return chosen
        draws = uniform(self.seed, epoch, key, "partner", size=crops - 1)
        places = self._in_cluster[index, 0] + np.floor(
            draws * self._others[index]
        ).astype(np.int64)
        begin, end = self._in_recording[index]
        places[places >= begin] += end - begin
        chosen[1:] = self._members[places]
        return chosen


def _tabulate(module, _=None):
    """List the members of all clusters, and where each begins and ends."""
    clusters, recordings = module.clusters.numpy(), module._recordings
    # Members of a cluster one after the other, those of a recording, too.
    order = np.lexsort((recordings, clusters))
    both = clusters * (recordings.max() + 1) + recordings
    module._members = order
    module._in_cluster = _spans(clusters, order)
    module._in_recording = _spans(both, order)
    sizes = module._in_cluster - module._in_recording
    # Utterances of other recordings; none without a cluster.
    module._others = np.where(clusters < 0, 0, sizes[:, 1] - sizes[:, 0])


def _spans(groups, order):
    """Return where the group of each row begins and ends in a sorted order.

    Arguments
    ---------
    groups : numpy.ndarray
        int64 ``[N]``.
    order : numpy.ndarray
        Positions sorted by group, int64 ``[N]``.

    Returns
    -------
    numpy.ndarray
        int64 ``[N, 2]``.
    """
    ordered = groups[order]
    return np.stack(
        [np.searchsorted(ordered, groups, side) for side in ("left", "right")],
        axis=1,
    )
