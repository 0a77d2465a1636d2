"""Keep what the decoder of MP3 files says off the console.

mpg123, which decodes them for libsndfile, writes to the process's stderr and
names no file, and libsndfile cannot silence it. Of a sound file it writes
``part2_3_length (800) too large`` when it begins in the middle, since an MP3
frame has part of its bits in earlier ones. What is wrong with a broken file
comes back as an error, or shows in its length.
"""

import contextlib
import os
import re
import tempfile
import threading

_MESSAGE = re.compile(
    rb"\s*(?:\[src/libmpg123|Warning: |Note: )[^\r\n]*(?:\r?\n)+"
)

# There is one stderr, so one thread at a time decodes MP3. A process that is
# forked meanwhile would begin with a redirected one.
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_lock.release,
    )


@contextlib.contextmanager
def mp3_messages_dropped():
    """Drop what mpg123 writes to stderr within; all else is written after.

    Example
    -------
    >>> with mp3_messages_dropped():
    ...     _ = os.write(2, b"[src/libmpg123/layer3.c] error: too large\\n")
    """
    with _lock, contextlib.ExitStack() as stack:
        try:
            heard = stack.enter_context(tempfile.TemporaryFile())
            stderr = os.dup(2)
        except OSError:
            # No stderr, or no place for a temporary file.
            yield
            return
        os.dup2(heard.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            heard.seek(0)
            others = _MESSAGE.sub(b"", heard.read())
            if others:
                os.write(2, others)
