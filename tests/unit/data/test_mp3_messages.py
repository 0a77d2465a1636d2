"""Only what mpg123 writes to stderr is dropped."""

import os

from speechbrain_ssl.data.mp3_messages import mp3_messages_dropped


def test_other_text_is_written(capfd):
    with mp3_messages_dropped():
        os.write(2, b"\rscan: 3 of 5")
        os.write(2, b"[src/libmpg123/layer3.c:f():17] error: too large\n")
        os.write(2, b"\nWarning: Xing stream size off by more than 1%\n\n")
        os.write(2, b"Note: Illegal Audio-MPEG-Header 0x00000000.\n")
        os.write(2, b"a line of a log\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "\rscan: 3 of 5a line of a log\n"


def test_afterwards_stderr_is_what_it_was(capfd):
    try:
        with mp3_messages_dropped():
            raise RuntimeError
    except RuntimeError:
        os.write(2, b"Note: written\n")
    assert capfd.readouterr().err == "Note: written\n"


def test_a_fork_waits_and_can_decode(capfd):
    """A forked process has the real stderr, and a free lock."""
    with mp3_messages_dropped():
        pass
    child = os.fork()
    if child == 0:
        with mp3_messages_dropped():
            os.write(2, b"Warning: dropped\n")
        os.write(2, b"child\n")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert capfd.readouterr().err == "child\n"


def test_without_stderr():
    stderr = os.dup(2)
    os.close(2)
    try:
        with mp3_messages_dropped():
            done = True
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    assert done
