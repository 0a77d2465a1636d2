"""MoCo v2+: contrast a crop with a momentum teacher's keys of many batches.

He et al., 2020 (arXiv 1911.05722, equation 1), with the head of Chen et al.,
2020 (MoCo v2, arXiv 2003.04297); the "+" means that both crops are queries.
With the student's unit projections q_v of the two crops, the teacher's k_w, and
a queue Q_w that holds k_w of the last steps:

    L = mean over batch and (v, w) = (1, 2), (2, 1) of
        - log  exp(q_v . k_w / tau)
               / ( exp(q_v . k_w / tau) + sum over k in Q_w of exp(q_v . k / tau) )

A margin (see ``pair_margin``) lowers q_v . k_w in the numerator and in the
denominator.

The queue is a buffer, so checkpoints contain it. After each step that is taken,
the keys of all processes are added to it. Empty slots of a queue that is not
full yet are ignored; in the very first step there are no negatives and the loss
is 0.

In its original form every process has batch norms of its own, and the crops are
shuffled among the processes before the teacher encodes them, and its keys put
back in order (section 3.3): statistics that query and key share would betray
that they belong together. Here they may also be synchronised over all
processes: then query and key share the statistics, but so do all others. The
running statistics, which training does not use, are those of the first process,
as with DistributedDataParallel. With one process there is nothing to shuffle
and both are the same.

The student's encoder is the one that is evaluated. If a positive-sampling
rule replaces keys, the replacements go into the queue, as in the SSPS code.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_int, check_number
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.pair_margin import PairMargin
from speechbrain_ssl.objectives.projector import Projector
from speechbrain_ssl.objectives.views import check_two_crops


class MoCo(Objective):
    """Compute the MoCo loss, and keep its queue.

    The defaults are those of sslsv's published figure, without a head. MoCo v2
    has a head of two layers (2048 and 128) without batch norm, and a
    temperature of 0.2.

    Arguments
    ---------
    embedding_size : int
        Size of the encoder's output.
    queue : int
        Number of keys that are kept for each crop.
    temperature : float
        tau.
    margin : float
        Margin on the cosines of positive pairs; 0 leaves it out.
    margin_kind : str
        "cosface" or "arcface".
    hidden : int
        Hidden size of the head; 0 for no head.
    output_size : int
        Size of the projections if there is a head.
    batch_norm : str
        ``synchronised`` over all processes, or ``shuffled``: each process by
        itself, with shuffled keys.

    Raises
    ------
    ConfigError
        If the temperature is not above 0, a size is not a positive whole
        number, the margin is out of range, or ``batch_norm`` is unknown.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> moco = MoCo(embedding_size=8, queue=16)
    >>> student = Branch(v := torch.randn(4, 2, 8), v, moco.head)
    >>> teacher = Branch(v := torch.randn(4, 2, 8), v, moco.head)
    >>> loss, scalars = moco(student, teacher)
    >>> moco.after_step()
    >>> int(moco.filled)
    4
    """

    momentum = True

    def __init__(
        self,
        embedding_size,
        queue=32768,
        temperature=0.03,
        margin=0.0,
        margin_kind="cosface",
        hidden=0,
        output_size=128,
        batch_norm="synchronised",
    ):
        super().__init__()
        check_number("MoCo", "temperature", temperature, above=0)
        check_int("MoCo", "queue", queue, least=1)
        if batch_norm not in ("synchronised", "shuffled"):
            raise ConfigError(
                "MoCo's batch_norm must be `synchronised` or `shuffled`, got "
                f"{batch_norm!r}"
            )
        self.shuffles_keys = batch_norm == "shuffled"
        self.temperature = temperature
        self.margin = PairMargin(margin, margin_kind)
        if hidden:
            self.head = Projector(
                embedding_size, hidden, output_size, 2, batch_norm=False
            )
        else:
            self.head = torch.nn.Identity()
        size = output_size if hidden else embedding_size
        # Row v holds the negatives for queries of crop v: keys of the other
        # crop.
        self.register_buffer("queue", torch.zeros(2, queue, size))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def set_up(self, utterances, seed):
        """Reject a queue in which an utterance would meet its own old keys.

        Arguments
        ---------
        utterances : int
            Length of the training manifest.
        seed : int
            Not used.

        Raises
        ------
        ConfigError
            If the queue is at least as long as the training set.
        """
        if self.queue.shape[1] >= utterances:
            raise ConfigError(
                f"MoCo's queue of {self.queue.shape[1]} is at least as long as "
                f"the training set ({utterances} utterances): each utterance "
                "would meet its own old keys as negatives; make `moco_queue` "
                "smaller (a few batches long)"
            )

    def check_epoch(self, utterances, batch):
        """Reject a queue that cannot hold the keys of one step.

        Arguments
        ---------
        utterances : int
            Not used.
        batch : int
            Number of utterances that one step sees, over all processes and
            accumulated batches.

        Raises
        ------
        ConfigError
            If the queue is shorter than a step.
        """
        if batch > self.queue.shape[1]:
            raise ConfigError(
                f"MoCo's queue of {self.queue.shape[1]} does not hold the keys "
                f"of one step ({batch} or more utterances, over all processes "
                "and accumulated batches); make `moco_queue` larger or the batch "
                "smaller"
            )

    def forward(self, online, target):
        """Compute the loss.

        Arguments
        ---------
        online, target : speechbrain_ssl.objectives.base.Branch
            The student and the teacher, each over the two crops.

        Returns
        -------
        tuple
            Loss, and the scalars ``positive_cosine`` (mean cosine of query and
            key of an utterance) and ``accuracy`` (share of queries that are
            nearer to their own key than to any key in the queue), both without
            margin.

        Raises
        ------
        ConfigError
            If there are not exactly two crops, if the projections do not have
            the queue's size, or if the queue cannot hold the keys of one step.
        """
        check_two_crops(online, target, "MoCo")
        self.expect("embedding_size", self.queue.shape[2], online.projections)
        queries = F.normalize(online.projections.float(), dim=-1)
        with torch.no_grad():
            keys = F.normalize(target.projections.float(), dim=-1).flip(1)
            self.notes.append(keys)
            # Training has checked this already; a direct caller has not.
            total = distributed.world_size() * sum(map(len, self.notes))
            self.check_epoch(total, total)
        positive = (queries * keys).sum(-1).T.unsqueeze(-1)
        # Not in bf16: divided by 0.03, its rounding error would be 0.07 nats.
        with torch.autocast(queries.device.type, enabled=False):
            negative = queries.transpose(0, 1) @ self.queue.mT
        slots = torch.arange(self.queue.shape[1], device=queries.device)
        negative = negative.masked_fill(slots >= self.filled, float("-inf"))
        logits = torch.cat([self.margin(positive), negative], dim=2)
        logits = logits.flatten(0, 1) / self.temperature
        own = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        loss = F.cross_entropy(logits, own)
        with torch.no_grad():
            nearest = positive > negative.amax(2, keepdim=True)
            scalars = {
                "positive_cosine": positive.mean(),
                "accuracy": nearest.float().mean(),
            }
        return loss, scalars

    @torch.no_grad()
    def after_step(self):
        """Overwrite the oldest keys in the queue with those of the step."""
        keys = torch.cat([distributed.gather(k) for k in self.notes.take()])
        steps = torch.arange(len(keys), device=keys.device)
        slots = (self.place + steps) % self.queue.shape[1]
        self.queue[:, slots] = keys.transpose(0, 1)
        self.place.add_(len(keys)).remainder_(self.queue.shape[1])
        self.filled.add_(len(keys)).clamp_(max=self.queue.shape[1])
