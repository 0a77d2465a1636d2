"""A reader never sees half of a file."""

import errno
import os
import stat

import pytest

from speechbrain_ssl.files import atomic_write


def test_writes_text_and_bytes_in_new_folders(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_write(path) as stream:
        stream.write("ümlaut\n")
        # Nothing under the final name until the end.
        assert not path.exists()
    assert path.read_bytes() == "ümlaut\n".encode()
    with atomic_write(str(path), "wb") as stream:
        stream.write(b"\xff\x00")
    assert path.read_bytes() == b"\xff\x00"
    assert os.listdir(path.parent) == ["c.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        with atomic_write(path) as stream:
            stream.write("ne")
            raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    """ENOSPC often comes only when buffers are flushed, at the very end."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        with atomic_write(path) as stream:
            stream.write("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_that_is_really_full(tmp_path):
    """The same with the kernel's own ENOSPC."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        with atomic_write(path) as stream:
            handle = os.open("/dev/full", os.O_WRONLY)
            os.dup2(handle, stream.fileno())
            os.close(handle)
            stream.write("x" * 100_000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_others_may_read_it_as_any_file(tmp_path):
    """mkstemp's files are their owner's alone; the umask is what counts."""
    umask = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "a.txt") as stream:
            stream.write("x")
    finally:
        os.umask(umask)
    mode = stat.S_IMODE(os.stat(tmp_path / "a.txt").st_mode)
    assert mode == 0o644


def test_the_process_keeps_its_umask(tmp_path):
    umask = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a.txt") as stream:
            stream.write("x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(umask)
