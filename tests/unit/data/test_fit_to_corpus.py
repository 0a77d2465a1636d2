"""What a small corpus has too few utterances for is lowered, and said."""

import pytest

from speechbrain_ssl.data.loaders import fit_to_corpus
from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.errors import ManifestError


def manifest_of(*seconds):
    names = StringColumn.from_strings([f"u{i}" for i in range(len(seconds))])
    return Manifest(names, names, seconds)


@pytest.mark.parametrize(
    "seconds, batches, expected",
    [
        ([4.0] * 1000, 1, (200, 128)),  # enough
        ([4.0] * 400, 1, (200, 128)),  # the most that is held out
        ([4.0] * 399, 1, (79, 128)),
        ([4.0] * 100, 1, (20, 80)),
        ([4.0] * 100, 4, (20, 20)),
        ([4.0] * 5 + [3.9] * 95, 1, (5, 95)),
        ([4.0] * 3, 1, (2, 1)),
    ],
)
def test_numbers(seconds, batches, expected, caplog):
    hparams = {
        "valid_utterances": 200,
        "valid_seconds": 2.0,
        "batch_size": 128,
    }
    fit_to_corpus(hparams, manifest_of(*seconds), batches)
    assert (hparams["valid_utterances"], hparams["batch_size"]) == expected
    changed = (expected[0] < 200) + (expected[1] < 128)
    assert len(caplog.messages) == changed


def test_too_short_for_validation():
    hparams = {
        "valid_utterances": 200,
        "valid_seconds": 2.0,
        "batch_size": 128,
    }
    with pytest.raises(ManifestError, match="of 9 utterances 1 have the 4 s"):
        fit_to_corpus(hparams, manifest_of(4.0, *[1.0] * 8))
