"""The momentum teacher: a copy that follows the student slowly."""

import copy

import torch


class MomentumTeacher(torch.nn.Module):
    """A copy of encoder and head whose parameters are a moving average.

    It is no member of the Brain's ``modules``: those are handed to the
    optimiser and switched to training mode by SpeechBrain. Its batch norms use
    the statistics of the batch while training, as in the original DINO (their
    running buffers move in the teacher's own forward passes), and the running
    ones in evaluation; whoever calls it says which, by ``train`` or ``eval``.

    Arguments
    ---------
    encoder, head : torch.nn.Module
        The student's, which are copied.

    Example
    -------
    >>> student = torch.nn.Linear(2, 2)
    >>> teacher = MomentumTeacher(student, torch.nn.Identity())
    >>> teacher.update(student, torch.nn.Identity(), momentum=0.99)
    """

    def __init__(self, encoder, head):
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.head = copy.deepcopy(head)
        self.requires_grad_(False)

    @torch.no_grad()
    def update(self, encoder, head, momentum):
        """theta_t <- m theta_t + (1 - m) theta_s, for parameters only.

        Arguments
        ---------
        encoder, head : torch.nn.Module
            The student's.
        momentum : float
            m, in [0, 1].
        """
        mine = list(self.parameters())
        theirs = [*encoder.parameters(), *head.parameters()]
        torch._foreach_lerp_(mine, theirs, 1.0 - momentum)
