"""Distillation: learn the embeddings of a trained model, without labels.

A large encoder is slow where it is used. A small one that learns its embeddings
keeps most of what it knows. The teacher embeds each whole utterance once, before
training, and the student sees augmented crops of it. For unit vectors ``z`` of
the student's crops and ``t`` of the teacher's utterances::

    loss = mean (1 - <h(z_i), t_i>) + w * mean_{i != j} (<z_i, z_j> - <t_i, t_j>)^2

The first term copies the embeddings, the second the relations between those of
a batch, over all processes (Tung and Mori, 2019, arXiv 1907.09682, compare such
matrices). ``h`` is a linear layer where the sizes differ. The sum and its weight
are ours.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_number
from speechbrain_ssl.distributed import gather
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective


class Distillation(Objective):
    """Compare crops with a teacher's embeddings of their utterances.

    Arguments
    ---------
    teacher : str
        The model to learn from, as ``load_encoder`` takes it; the Brain embeds
        the training set with it.
    embedding_size : int
        Size of the student's embeddings.
    teacher_size : int
        Size of the teacher's.
    relation_weight : float
        Weight ``w`` of the second term.

    Raises
    ------
    ConfigError
        If the weight is negative.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> distillation = Distillation("a/model", embedding_size=4, teacher_size=4)
    >>> distillation.set_targets(torch.eye(4)[:3])
    >>> z = torch.eye(4)[[2, 0]].unsqueeze(1)
    >>> branch = Branch(z, distillation.head(z), None, torch.tensor([2, 0]))
    >>> float(distillation(branch, branch)[0])
    0.0
    """

    supports_positive_sampling = False
    needs_teacher_embeddings = True

    def __init__(
        self, teacher, embedding_size=192, teacher_size=192, relation_weight=1.0
    ):
        super().__init__()
        check_number(
            "Distillation", "relation_weight", relation_weight, least=0
        )
        self.teacher, self.relation_weight = teacher, relation_weight
        self.teacher_size = teacher_size
        self.head = torch.nn.Identity()
        if embedding_size != teacher_size:
            self.head = torch.nn.Linear(embedding_size, teacher_size)
        # Computed again where a run resumes, so not part of a checkpoint.
        self.register_buffer("targets", None, persistent=False)

    def set_targets(self, rows):
        """Set the teacher's embeddings of the training set.

        Arguments
        ---------
        rows : torch.Tensor
            ``[utterances, teacher_size]``, of any norm.

        Raises
        ------
        ConfigError
            If they have another size.
        """
        if rows.shape[1] != self.teacher_size:
            raise ConfigError(
                f"the embeddings of the teacher {self.teacher} have "
                f"{rows.shape[1]} numbers; set `teacher_size` to it"
            )
        self.targets = F.normalize(rows, dim=1)

    def forward(self, online, target):
        """Compute the loss; see the equation above.

        Returns
        -------
        tuple
            The loss, and its two terms without gradient.
        """
        wanted = self.targets[online.index]
        copied = F.normalize(online.projections.float(), dim=2)
        embedding = (1 - (copied * wanted.unsqueeze(1)).sum(2)).mean()
        rows = F.normalize(online.embeddings.float(), dim=2)
        # Rows of this process, columns of all.
        others, others_wanted = gather(rows), gather(wanted)
        cosines = rows.transpose(0, 1) @ others.permute(1, 2, 0)
        difference = cosines - wanted @ others_wanted.T
        # Of a vector with itself, both cosines are 1.
        pairs = max(1, len(rows) * (len(others) - 1)) * len(cosines)
        relation = difference.square().sum() / pairs
        return embedding + self.relation_weight * relation, {
            "embedding_loss": embedding.detach(),
            "relation_loss": relation.detach(),
        }
