"""Notes of the batches since the last optimiser step, for what follows it.

State that follows the training (a centre, a queue, a memory) must not move for
a step that is skipped, so it moves in ``after_step``. Until then the batches
that make up the step, one or several, leave notes here. They are no state of a
checkpoint: one is only made right after a step, when there are none.
"""


class StepNotes(list):
    """A list of notes, one entry a batch.

    ``append`` in ``forward``, ``take`` in ``after_step``, ``clear`` in
    ``skip_step``.

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
        """Return the notes of the step as a list, and forget them."""
        taken = list(self)
        self.clear()
        return taken
