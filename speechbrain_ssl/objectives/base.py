"""The interface that every objective implements.

An objective is a head and a loss. It sees embeddings, never audio or files. The
Brain encodes the crops, projects them with the heads, and calls the objective
with two branches:

* ``online`` carries the gradient. It covers all crops, or only the local ones
  if ``student_sees_global_crops`` is False.
* ``target`` is what ``online`` is compared with. It covers the global crops.
  With a momentum teacher (``momentum = True``) it comes from the teacher and
  has no gradient; otherwise it is the global part of ``online``.

A positive-sampling rule such as SSPS acts between projection and loss: it
replaces rows of ``target.projections``, and the objective does not know that
they were replaced.
"""

import dataclasses

import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.step_notes import StepNotes


@dataclasses.dataclass
class Branch:
    """Hold what one branch has computed for a batch.

    Attributes
    ----------
    embeddings : torch.Tensor
        The encoder's output, ``[batch, crops, embedding size]``.
    projections : torch.Tensor
        The head's output, ``[batch, crops, projection size]``.
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
    """Provide the base class of all objectives.

    Attributes
    ----------
    momentum : bool
        Whether the target branch comes from a momentum teacher.
    evaluate_teacher : bool
        Whether the teacher's encoder is the one that is evaluated and exported,
        as in DINO. MoCo and BYOL discard the teacher after training.
    student_sees_global_crops : bool
        Whether the online branch encodes the global crops. Only an objective
        with a teacher may set this to False.
    scheduled : tuple of str
        Names of the scheduled values that ``forward`` takes.
    head : torch.nn.Module
        Maps embeddings ``[n, embedding size]`` to projections ``[n, size]``.
    needs_frames : bool
        Whether the Brain must fill in ``frames`` of the online branch.
    supports_positive_sampling : bool
        Whether the loss compares ``online`` with ``target.projections``, so
        that a positive-sampling rule may replace rows of the latter.
    stores_first_crop_embedding : bool
        Whether the projection of a sample's first crop is stored as that of
        the sample's utterance. The first crop must then be cut from that
        utterance, so cluster-aware sampling with the rule ``all`` is rejected.
    shuffles_keys : bool
        Whether each process has batch norms of its own, for which the teacher's
        crops are shuffled among the processes. Only an objective with a teacher
        may set this.
    needs_teacher_embeddings : bool
        Whether the Brain must embed the training set with a trained model,
        which the objective names as ``teacher``, and call ``set_targets``.
    notes : StepNotes
        What ``forward`` records for ``after_step``; empty between steps.
    """

    momentum = False
    evaluate_teacher = False
    student_sees_global_crops = True
    scheduled = ()
    needs_frames = False
    supports_positive_sampling = True
    stores_first_crop_embedding = False
    shuffles_keys = False
    needs_teacher_embeddings = False

    def __init__(self):
        super().__init__()
        self.notes = StepNotes()

    def set_up(self, utterances, seed):
        """Create the state whose size depends on the training set.

        Called once, before a checkpoint is read.

        Arguments
        ---------
        utterances : int
            Length of the training manifest.
        seed : int
            The run's seed.
        """

    def check_epoch(self, utterances, batch):
        """Reject an epoch or a step of a size that the objective cannot use.

        Called before the first epoch.

        Arguments
        ---------
        utterances : int
            Number of utterances that the complete steps of an epoch see.
        batch : int
            Number of utterances that one step sees, over all processes and
            accumulated batches.

        Raises
        ------
        ConfigError
            If a number is too small or too large for the objective.
        """

    def before_epoch(self, epoch):
        """Prepare an epoch; called in all processes before its first step.

        It is not called when a run resumes in the middle of an epoch, so
        whatever is decided here must be stored in buffers.

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
            scalars to plot.
        """
        raise NotImplementedError

    def held_out(self, target, **scheduled):
        """Return metrics of the target branch on held-out crops.

        Arguments
        ---------
        target : Branch
            The target branch over held-out crops.
        **scheduled : float
            The scheduled values named in ``scheduled``.

        Returns
        -------
        dict
            Scalars for the log and for the collapse alarm.
        """
        return {}

    def after_step(self):
        """Update the state that follows training, such as a centre or queue.

        Called only after an optimiser step that was actually taken. State
        changes here and not in ``forward``, so that a step that is skipped
        because of a non-finite gradient leaves no trace. What the update needs
        from the batches is in ``notes``.
        """

    def skip_step(self):
        """Discard the notes of a skipped step; replaces ``after_step``."""
        self.notes.clear()

    def prototype_parameters(self):
        """Return the parameters that may be frozen during the first epochs."""
        return []

    def no_weight_decay_parameters(self):
        """Return matrices to exempt from weight decay; vectors always are."""
        return []

    def unclipped_parameters(self):
        """Return the parameters whose gradient is not clipped."""
        return []

    def constant_lr_parameters(self):
        """Return parameters that keep the learning rate's highest value."""
        return []

    def expect(self, key, size, rows):
        """Reject embeddings or frames whose size is not the configured one.

        Arguments
        ---------
        key : str
            The argument that declares the size.
        size : int
            The declared size.
        rows : torch.Tensor
            ``[..., size]``.

        Raises
        ------
        ConfigError
            If the rows have another size.
        """
        if rows.shape[-1] != size:
            raise ConfigError(
                f"{type(self).__name__} was made with `{key}` {size}, but it "
                f"receives rows of {rows.shape[-1]} numbers: set `{key}` to "
                "the size that the encoder returns"
            )

    def expect_negatives(self, utterances):
        """Reject a batch without negative pairs.

        Arguments
        ---------
        utterances : int
            Number of utterances in the batch, over all processes.

        Raises
        ------
        ConfigError
            If there is only one utterance.
        """
        if utterances < 2:
            raise ConfigError(
                f"{type(self).__name__} needs another utterance in the batch "
                "for its negative pairs; set batch_size to 2 or more"
            )
