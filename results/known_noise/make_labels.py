#!/usr/bin/env python3
"""Speaker labels of which a known share is replaced by another speaker.

    python make_labels.py /path/to/speechocean762/train.csv 0.4 1 labels.csv

The share, and a seed, that of the run. Each label is wrong with that
probability; a wrong one is uniform over the other speakers.
"""

import sys

import numpy as np
import pandas as pd


def corrupt(speakers, share, seed):
    """Replaces a share of the labels.

    Arguments
    ---------
    speakers : numpy.ndarray
        ``[N]`` names.
    share : float
        How likely a label is to be wrong.
    seed : int
        Of the draws.

    Returns
    -------
    numpy.ndarray
        int64 ``[N]``.
    """
    rng = np.random.default_rng([seed, round(100 * share)])
    names, labels = np.unique(speakers, return_inverse=True)
    wrong = rng.random(len(labels)) < share
    other = labels + rng.integers(1, len(names), len(labels))
    return np.where(wrong, other % len(names), labels)


if __name__ == "__main__":
    source, share, seed, target = sys.argv[1:]
    table = pd.read_csv(source, dtype=str)
    table["label"] = corrupt(table["spk_id"], float(share), int(seed))
    table[["ID", "label"]].to_csv(target, index=False)
