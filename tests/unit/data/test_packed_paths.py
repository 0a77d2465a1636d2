"""Paths of packed audio wherever a file is looked for."""

import numpy as np
import pytest

from speechbrain_ssl.data.packed import file_of, packed_path
from speechbrain_ssl.embedding.cache import _stamp


def test_the_file_of_a_path(tmp_path):
    shard = tmp_path / "0.pcm16"
    np.zeros(1000, np.int16).tofile(shard)
    path = packed_path(str(shard), 10, 500)
    assert file_of(path) == str(shard)
    assert file_of(tmp_path / "a:1:2.wav") == str(tmp_path / "a:1:2.wav")
    # Utterances of one shard are not one recording.
    assert _stamp(path) != _stamp(packed_path(str(shard), 510, 490))
    with pytest.raises(FileNotFoundError):
        _stamp(packed_path(str(tmp_path / "1.pcm16"), 0, 10))
