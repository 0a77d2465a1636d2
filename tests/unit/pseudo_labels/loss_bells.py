"""Losses of right and of wrong labels, drawn from two bells."""

import numpy as np


def two_bells(right=600, wrong=400, apart=5.0, seed=0):
    """Losses of right and of wrong labels, ``[right + wrong]``."""
    draws = np.random.default_rng(seed)
    return np.exp(
        np.concatenate(
            [draws.normal(-3, 1, right), draws.normal(apart - 3, 1, wrong)]
        )
    )
