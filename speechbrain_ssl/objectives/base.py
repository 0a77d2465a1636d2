"""The interface that every objective has.

An objective is a head and a loss. It sees embeddings, never audio, files or
epochs. The Brain encodes the crops, lets the heads project them, and calls the
objective with two branches:

* ``online`` is the branch with gradient, over all crops (or the local ones only,
  where ``student_sees_global_crops`` is False);
* ``target`` is the branch the online one is compared with, over the global crops.
  With a momentum teacher (``momentum = True``) it comes from the teacher and
  has no gradient; otherwise it is the global part of ``online``.

A positive-sampling rule such as SSPS acts between the two steps: it replaces
rows of ``second.projections``; the objective does not know that they were replaced.
"""

import dataclasses

import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.step_notes import StepNotes


@dataclasses.dataclass
class Branch:
    """One side of a comparison.

    Attributes
    ----------
    embeddings : torch.Tensor
        What the encoder says, ``[batch, crops, embedding size]``.
    projections : torch.Tensor
        What the head makes of it, ``[batch, crops, vector size]``.
    head : torch.nn.Module
        The head of this branch.
    index : torch.Tensor, optional
        Position of each utterance in the training manifest, int64 ``[batch]``;
        None in validation.
    frames : torch.Tensor, optional
        The encoder's frames before pooling, ``[batch, crops, time, channels]``,
        for an objective with ``needs_frames``.
    """

    embeddings: torch.Tensor
    projections: torch.Tensor
    head: torch.nn.Module
    index: torch.Tensor | None = None
    frames: torch.Tensor | None = None


class Objective(torch.nn.Module):
    """Base of all objectives.

    Attributes
    ----------
    momentum : bool
        Whether the target branch comes from a momentum teacher.
    evaluate_teacher : bool
        Whether the teacher's encoder is the one that is evaluated and exported,
        as DINO's is; that of MoCo and BYOL is thrown away.
    student_sees_global_crops : bool
        Whether the online branch encodes the global crops. Only an objective
        with a teacher can do without.
    scheduled : tuple of str
        Names of the scheduled values the loss takes.
    head : torch.nn.Module
        Maps embeddings ``[n, embedding size]`` to vectors ``[n, size]``.
    needs_frames : bool
        Whether the online branch shall bring ``frames``.
    supports_positive_sampling : bool
        Whether the loss compares ``online`` with ``second.projections``, so that a
        positive-sampling rule may replace rows of the latter.
    stores_first_crop_embedding : bool
        Whether the vector of a sample's first crop is kept as that of its
        utterance, from which the crop then has to come: cluster-aware sampling
        by the rule ``all`` is refused.
    notes : StepNotes
        What ``forward`` leaves for ``after_step``; empty otherwise.
    """

    momentum = False
    evaluate_teacher = False
    student_sees_global_crops = True
    scheduled = ()
    needs_frames = False
    supports_positive_sampling = True
    stores_first_crop_embedding = False

    def __init__(self):
        super().__init__()
        self.notes = StepNotes()

    def set_up(self, utterances, seed):
        """Make the state whose size depends on the training set.

        Called once, before a checkpoint is read.

        Arguments
        ---------
        utterances : int
            Length of the training manifest.
        seed : int
            Of the run.
        """

    def check_epoch(self, utterances, batch):
        """Refuse epochs or steps that do not fit, before the first one.

        Arguments
        ---------
        utterances : int
            What the whole steps of an epoch see.
        batch : int
            What one step sees, over all processes and accumulated batches.

        Raises
        ------
        ConfigError
            If the objective needs more, or cannot take as many.
        """

    def before_epoch(self, epoch):
        """Prepare an epoch; called in all processes before its first step.

        Not in an epoch that is taken up in its middle: what is decided here
        has to be in buffers.

        Arguments
        ---------
        epoch : int
            Counted from 1.
        """

    def forward(self, online, target, **scheduled):
        """Compute the loss.

        Arguments
        ---------
        online, target : Branch
            The two branches.
        **scheduled : float
            The scheduled values named in ``scheduled``.

        Returns
        -------
        tuple
            The loss (a scalar with gradient) and a dictionary of detached
            scalars worth plotting.
        """
        raise NotImplementedError

    def held_out(self, target, **scheduled):
        """Return figures of the target branch on held-out crops.

        Arguments
        ---------
        target : Branch
            The teacher over held-out crops.
        **scheduled : float
            The scheduled values named in ``scheduled``.

        Returns
        -------
        dict
            Scalars for the log and for the collapse alarm.
        """
        return {}

    def after_step(self):
        """Move the state that follows the training, such as a centre or queue.

        Called after an optimiser step that was really taken. State moves here
        and not in ``forward``, so that a step that is skipped for a gradient
        that is not finite leaves no trace; what it needs of the batches is in
        ``notes``.
        """

    def skip_step(self):
        """Forget the step; called instead of ``after_step``."""
        self.notes.clear()

    def prototype_parameters(self):
        """Return the parameters that stay frozen during the first epochs."""
        return []

    def no_weight_decay_parameters(self):
        """Return matrices without weight decay; vectors never have any."""
        return []

    def expect(self, key, size, rows):
        """Refuse embeddings or frames of another size than was configured.

        Arguments
        ---------
        key : str
            The argument that says the size.
        size : int
            The size the argument declares.
        rows : torch.Tensor
            ``[..., size]``.

        Raises
        ------
        ConfigError
            If the rows are of another size.
        """
        if rows.shape[-1] != size:
            raise ConfigError(
                f"{type(self).__name__} was made with `{key}` {size}, but what "
                f"it is given has {rows.shape[-1]} numbers: set `{key}` to "
                "what the encoder gives"
            )

    def expect_negatives(self, utterances):
        """Refuse a batch in which an utterance meets no other one.

        Arguments
        ---------
        utterances : int
            Of the batch, in all processes.

        Raises
        ------
        ConfigError
            If there is only one.
        """
        if utterances < 2:
            raise ConfigError(
                f"{type(self).__name__} needs another utterance in the batch "
                "for its negative pairs; set batch_size to 2 or more"
            )
