"""Notes that the batches of a step leave for the update after it.

State that follows the training (a centre, a queue, a memory) must not change if
a step is skipped, so it is updated in ``after_step``. Until then, each batch of
the step leaves a note here; with gradient accumulation there are several.
Checkpoints need not contain the notes: they are written right after a step,
when the list is empty.
"""


class StepNotes(list):
    """Collect notes, one entry per batch.

    An objective calls ``append`` in ``forward``, ``take`` in ``after_step`` and
    ``clear`` in ``skip_step``.

    Example
    -------
    >>> notes = StepNotes()
    >>> notes.append("first batch")
    >>> notes.append("second batch")
    >>> notes.take()
    ['first batch', 'second batch']
    >>> notes
    []
    """

    def take(self):
        """Return the notes of the step as a list, and clear them."""
        taken = list(self)
        self.clear()
        return taken
