"""CPC: what comes next in this utterance, and not in the others.

Van den Oord et al., 2018 (arXiv 1807.03748, equations 3 and 4). With the frames
z_t of an utterance, the context c_t = GRU(z_1 .. z_t) and a matrix W_k for each
number of steps ahead, k = 1 .. K:

    f_k(z, c) = z . W_k c
    L = mean over utterances, t and k of
        - log  exp f_k(z_t+k, c_t) / sum over j of exp f_k(z^j_t+k, c_t)

where j runs over the utterances of the batch, at the same place of the same
crop. What tells utterances apart over tenths of a second is, mostly, who speaks
and in which room.

The paper's encoder sees 30 ms, and its features are the contexts. Here:

* A frame is the mean of some frames of the encoder, which for ECAPA are 10 ms
  apart.
* A frame of an ECAPA sees up to 1.3 s, and by its squeeze and excitation
  something of the whole crop: the context knows of what it predicts, noise and
  all. So the frames to predict are by default those of the next crop of the
  utterance, which has another noise; sslsv does so too. (``across_crops``)
* What is used afterwards is the encoder's embedding, which a loss on frames does
  not train. So the context begins with it: h_0 = tanh(U e) in the GRU. This is
  ours. (``embedding_size``)

sslsv, whose published figure the other defaults are from, predicts from the
last context alone and scores with it.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_int
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.views import own_rows


class CPC(Objective):
    """The CPC loss with its context network.

    Arguments
    ---------
    channels : int
        Channels of the encoder's frames (ECAPA: the last entry of its
        ``channels``).
    embedding_size : int, optional
        Size of the encoder's embedding, which begins the context. Without it
        the context begins at 0, as in the paper, and the layers from the
        frames to the embedding stay as they are initialised.
    hidden : int
        Size of the context. The paper and sslsv have 256.
    steps : int
        K. sslsv has 4, the paper 12.
    frames_per_step : int
        How many frames of the encoder are averaged to one. A default of ours:
        8, with ECAPA 80 ms.
    across_crops : bool
        Whether the frames to predict are those of the utterance's next crop (of
        the last one, those of the first), as in sslsv, or of the same one, as
        in the paper.

    Raises
    ------
    ConfigError
        If a size is no whole number from 1.

    Example
    -------
    >>> from speechbrain_ssl.objectives.base import Branch
    >>> cpc = CPC(6, embedding_size=8, hidden=4, steps=2, frames_per_step=5)
    >>> e = torch.randn(3, 2, 8)
    >>> frames = torch.randn(3, 2, 40, 6)
    >>> online = Branch(e, e, cpc.head, frames=frames)
    >>> loss, scalars = cpc(online, online)
    >>> loss.shape
    torch.Size([])
    """

    needs_frames = True
    supports_positive_sampling = False

    def __init__(
        self,
        channels,
        embedding_size=None,
        hidden=256,
        steps=4,
        frames_per_step=8,
        across_crops=True,
    ):
        super().__init__()
        for key, value in (
            ("channels", channels),
            ("hidden", hidden),
            ("steps", steps),
            ("frames_per_step", frames_per_step),
        ):
            check_int("CPC", key, value, least=1)
        self.steps = steps
        self.frames_per_step = frames_per_step
        self.across_crops = across_crops
        self.head = torch.nn.Identity()
        self.context = torch.nn.GRU(channels, hidden, batch_first=True)
        self.start = None
        if embedding_size is not None:
            self.start = torch.nn.Linear(embedding_size, hidden)
        # All W_k, transposed: z . W_k c is (W_k^T z) . c, and W_k^T z is six
        # times smaller than W_k c (for 1536 channels).
        self.targets = torch.nn.Linear(channels, steps * hidden, bias=False)

    def forward(self, online, target):
        """Compute the loss.

        Arguments
        ---------
        online : speechbrain_ssl.objectives.base.Branch
            With ``frames``; all its crops count, and none is a negative of
            another one.
        target : speechbrain_ssl.objectives.base.Branch
            Not looked at.

        Returns
        -------
        tuple
            Loss, and the scalar ``accuracy`` (how often the right utterance is
            the likeliest to go on).

        Raises
        ------
        ConfigError
            If the crops are too short, if there is only one and the next
            one's frames are wanted, if frames or embeddings are of other sizes
            than those it was made for, or if there is only one utterance.
        """
        frames = self._averaged(online.frames)
        self.expect("frame_channels", self.context.input_size, frames)
        if self.start is not None:
            size = self.start.in_features
            self.expect("embedding_size", size, online.embeddings)
        own, crops, time = frames.shape[:3]
        if self.across_crops and crops < 2:
            raise ConfigError(
                "CPC predicts the frames of another crop, but there is only "
                "one; set global_crops to 2, or across_crops to False"
            )
        # Small products gain nothing from bf16, and logits lose by it.
        with torch.autocast(frames.device.type, enabled=False):
            start = None
            if self.start is not None:
                embeddings = online.embeddings.float().flatten(0, 1)
                start = torch.tanh(self.start(embeddings)).unsqueeze(0)
            context, _ = self.context(
                frames[:, :, : time - self.steps].flatten(0, 1), start
            )
            context = context.unflatten(0, (own, crops))
            targets = distributed.gather(self.targets(frames))
            self.expect_negatives(len(targets))
            targets = targets.unflatten(-1, (self.steps, -1))
            # Row t of the k-th has what is k + 1 steps after t.
            ahead = torch.stack(
                [
                    targets[:, :, k + 1 : time - self.steps + k + 1, k]
                    for k in range(self.steps)
                ]
            )
            if self.across_crops:
                ahead = ahead.roll(-1, dims=2)
            # Context of utterance i, target of utterance j.
            logits = torch.einsum("ictd,kjctd->kctij", context, ahead)
        logits = logits.flatten(0, -2)
        right = own_rows(own, frames.device).repeat(len(logits) // own)
        loss = F.cross_entropy(logits, right)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == right).float().mean()
        return loss, {"accuracy": accuracy}

    def _averaged(self, frames):
        """Average each ``frames_per_step`` frames; a rest at the end is left out."""
        count = frames.shape[2] // self.frames_per_step
        if count <= self.steps:
            raise ConfigError(
                f"CPC predicts {self.steps} steps of {self.frames_per_step} "
                f"frames from one before them, but a crop has only "
                f"{frames.shape[2]} frames; make global_seconds longer, or "
                "`steps` or `frames_per_step` smaller"
            )
        frames = frames[:, :, : count * self.frames_per_step].float()
        return frames.unflatten(2, (count, self.frames_per_step)).mean(3)
