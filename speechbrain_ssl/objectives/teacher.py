"""The momentum teacher: a moving average of the student."""

import copy

import torch


class MomentumTeacher(torch.nn.Module):
    """Keep a moving average of an encoder and a head.

    It is not a member of the Brain's ``modules``, because SpeechBrain hands
    those to the optimiser and switches them to training mode. In training mode
    its batch norms use the statistics of the batch, as in the original DINO,
    and the teacher's own forward passes update the running statistics; in
    evaluation mode they use the running ones. The caller selects the mode with
    ``train`` or ``eval``.

    Arguments
    ---------
    encoder, head : torch.nn.Module
        The student's modules, which are copied.

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
        """Set theta_t to m theta_t + (1 - m) theta_s, for parameters only.

        Arguments
        ---------
        encoder, head : torch.nn.Module
            The student's modules.
        momentum : float
            m, in [0, 1].
        """
        teacher = list(self.parameters())
        student = [*encoder.parameters(), *head.parameters()]
        torch._foreach_lerp_(teacher, student, 1.0 - momentum)
