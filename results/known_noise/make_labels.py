#!/usr/bin/env python3
"""Replace a known share of the speaker labels by other speakers.

    python make_labels.py /path/to/speechocean762/train.csv 0.4 1 labels.csv

The numbers are the share and the seed of the run. Each label is replaced with that
probability, by a speaker drawn uniformly from the others.
"""

import sys

import numpy as np
import pandas as pd


def corrupt(speakers, share, seed):
    """Replace a share of the labels.

    Arguments
    ---------
    speakers : numpy.ndarray
        Names, ``[N]``.
    share : float
        The probability that a label is replaced.
    seed : int
        Seed of the draws.

    Returns
    -------
    numpy.ndarray
        Labels, int64 ``[N]``.
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
