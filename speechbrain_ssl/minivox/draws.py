"""Return the random generators of MiniVox, one for each key.

A key consists of the seed of the corpus, the kind of draw, and up to three
numbers: speaker, video and utterance.
"""

import numpy as np

#: First word after the seed, so that no two kinds of draw share a stream.
VOICE, CHANNEL, UTTERANCE, NOISE, MUSIC, ROOM, FACE, SCENE, MOMENT = range(
    1, 10
)


def generator(seed, kind, first=0, second=0, third=0):
    """Return the random generator of one key.

    The key always has the same number of words: numpy pads shorter ones with
    zeros, so that ``[1]`` would be the same as ``[1, 0]``.
    """
    return np.random.default_rng([seed, kind, first, second, third])
