"""Random numbers that are addresses: reference, addressing, quality."""

import zlib

import numpy as np
import pytest
import scipy.stats

from speechbrain_ssl.data.draws import permutation, purpose, uniform

MASK = 2**64 - 1


def splitmix64(state):
    """Steele, Lea and Flood's generator as published: next state, output."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return state, z ^ (z >> 31)


def mix(z):
    """The output function alone: splitmix64 of a state one step before."""
    return splitmix64((z - 0x9E3779B97F4A7C15) & MASK)[1]


def reference(*address, size=None):
    """What ``uniform`` says it does, one Python integer at a time."""
    state = 0x5EED
    for part in address:
        if isinstance(part, str):
            part = zlib.crc32(part.encode())
        _, hashed = splitmix64(part)
        state = mix(((state + 0x9E3779B97F4A7C15) & MASK) ^ hashed)
    if size is None:
        return (state >> 11) / 2**53
    draws = []
    for _ in range(size):
        state, output = splitmix64(state)
        draws.append((output >> 11) / 2**53)
    return draws


def test_splitmix64_as_published():
    """The reference itself: first outputs for the seed 1234567."""
    state, outputs = 1234567, []
    for _ in range(3):
        state, output = splitmix64(state)
        outputs.append(output)
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize(
    "address",
    [
        (0,),
        (1234, 1, 2**64 - 1, "crop"),
        (7, 150, 2**63 + 5, 3, "snr"),
        ("only a purpose",),
        (0, 0, 0),
    ],
)
def test_against_python_integers(address):
    assert float(uniform(*address)) == reference(*address)
    assert uniform(*address, size=5).tolist() == reference(*address, size=5)


def test_a_draw_depends_on_its_address_alone():
    """Batch, order, dtype and the number of draws do not matter."""
    keys = np.random.default_rng(0).integers(0, 2**64, 50, dtype=np.uint64)
    together = uniform(1, 2, keys, "crop", size=4)
    assert together.shape == (50, 4)
    backwards = uniform(1, 2, keys[::-1], "crop", size=4)[::-1]
    assert np.array_equal(together, backwards)
    for row, key in zip(together, keys, strict=True):
        assert np.array_equal(row, uniform(1, 2, int(key), "crop", size=4))
        assert np.array_equal(row, uniform(1, 2, key, "crop", size=4))
        # More draws than asked for begin with the same ones.
        more = uniform(1, np.int32(2), key, "crop", size=9)
        assert np.array_equal(row, more[:4])
    table = uniform(1, keys[:, None], np.arange(3)[None, :])
    assert table.shape == (50, 3)
    assert table[7, 2] == uniform(1, int(keys[7]), 2)


def test_every_part_of_an_address_counts():
    base = (3, 1, 99, "crop")
    others = [
        (4, 1, 99, "crop"),
        (3, 2, 99, "crop"),
        (3, 1, 98, "crop"),
        (3, 1, 99, "chunk"),
        (1, 3, 99, "crop"),  # order
        (3, 1, 99),
        (3, 1, 99, "crop", 0),
    ]
    values = [float(uniform(*a)) for a in [base, *others]]
    assert len(set(values)) == len(values)
    assert purpose("crop") != purpose("chunk")


@pytest.mark.parametrize("axis", ["key", "epoch", "seed", "size"])
def test_uniform(axis):
    """Kolmogorov and Smirnov have no objection, along each coordinate."""
    count = 100_000
    n = np.arange(count)
    draws = {
        "key": lambda: uniform(1, 1, n, "crop"),
        "epoch": lambda: uniform(1, n, 5, "crop"),
        "seed": lambda: uniform(n, 1, 5, "crop"),
        "size": lambda: uniform(1, 1, 5, "crop", size=count),
    }[axis]()
    assert draws.min() >= 0 and draws.max() < 1
    assert len(np.unique(draws)) == count
    assert scipy.stats.kstest(draws, "uniform").pvalue > 1e-3


def test_neighbouring_addresses_are_independent():
    """Neither neighbours nor bits of a low count leave a trace."""
    n = np.arange(200)
    table = uniform(1, n[:, None], n[None, :], "x", size=8)
    for axis in range(3):
        a = np.take(table, range(table.shape[axis] - 1), axis).ravel()
        b = np.take(table, range(1, table.shape[axis]), axis).ravel()
        # Five standard deviations of the correlation of independent draws.
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))
    # (epoch, key) and (key, epoch) have nothing to do with each other.
    a, b = table[..., 0], table[..., 0].T
    upper = np.triu_indices(200, 1)
    r = np.corrcoef(a[upper], b[upper])[0, 1]
    assert abs(r) < 5 / np.sqrt(len(upper[0]))


def test_permutation():
    order = permutation(1000, 1, 5, "batches")
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert np.array_equal(order, permutation(1000, 1, 5, "batches"))
    assert not np.array_equal(order, permutation(1000, 1, 6, "batches"))
    assert len(permutation(1, 1, 5)) == 1
    # Every element comes first about equally often.
    first = [permutation(5, epoch)[0] for epoch in range(2000)]
    assert scipy.stats.chisquare(np.bincount(first)).pvalue > 1e-3
