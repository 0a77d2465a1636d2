"""CPC: tell the next frames of an utterance from those of other utterances.

Van den Oord et al., 2018 (arXiv 1807.03748, equations 3 and 4). With the frames
z_t of an utterance, the context c_t = GRU(z_1 .. z_t) and a matrix W_k for each
number of steps ahead, k = 1 .. K:

    f_k(z, c) = z . W_k c
    L = mean over utterances, t and k of
        - log  exp f_k(z_t+k, c_t) / sum over j of exp f_k(z^j_t+k, c_t)

where j runs over the utterances of the batch, at the same position of the same
crop. Over tenths of a second, utterances differ mostly in who speaks and in
which room.

The paper's encoder sees 30 ms, and its contexts serve as features. Here:

* A frame is the mean of several frames of the encoder, which for ECAPA are 10
  ms apart.
* A frame of ECAPA sees up to 1.3 s and, through squeeze and excitation, part of
  the whole crop, so the context already contains information about the frames
  that it predicts, including their noise. By default the frames to predict are
  therefore those of the next crop of the utterance, which has other noise, as
  in sslsv (``across_crops``).
* The encoder's embedding is what is used after training, and a loss on frames
  does not train it. The embedding therefore initialises the context: h_0 =
  tanh(U e) in the GRU. This is ours (``embedding_size``).

The other defaults come from sslsv's published figure. sslsv predicts from the
last context alone and scores trials with it.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl import distributed
from speechbrain_ssl.checks import check_int
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Objective
from speechbrain_ssl.objectives.views import own_rows


class CPC(Objective):
    """Compute the CPC loss with its context network.

    Arguments
    ---------
    channels : int
        Channels of the encoder's frames (ECAPA: the last entry of its
        ``channels``).
    embedding_size : int, optional
        Size of the encoder's embedding, which initialises the context. Without
        it the context starts at 0, as in the paper, and the layers from the
        frames to the embedding are not trained.
    hidden : int
        Size of the context; 256 in the paper and in sslsv.
    steps : int
        K; 4 in sslsv, 12 in the paper.
    frames_per_step : int
        Number of encoder frames that are averaged to one. A default of ours:
        8, which is 80 ms with ECAPA.
    across_crops : bool
        Whether to predict the frames of the utterance's next crop (for the last
        crop, the first), as in sslsv, or those of the same crop, as in the
        paper.

    Raises
    ------
    ConfigError
        If a size is not a positive whole number.

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
            Needs ``frames``. All crops are used; crops of the same utterance
            are never each other's negatives.
        target : speechbrain_ssl.objectives.base.Branch
            Not used.

        Returns
        -------
        tuple
            Loss, and the scalar ``accuracy`` (share of predictions for which
            the right utterance has the highest score).

        Raises
        ------
        ConfigError
            If the crops are too short, if there is only one crop and
            ``across_crops`` is set, if frames or embeddings do not have the
            configured size, or if there is only one utterance.
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
        # bf16 would not speed up such small products, and would round logits.
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
            # Row t of ahead[k] is the frame k + 1 steps after t.
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
        """Average every ``frames_per_step`` frames; drop an incomplete rest."""
        count = frames.shape[2] // self.frames_per_step
        if count <= self.steps:
            raise ConfigError(
                f"CPC predicts {self.steps} steps of {self.frames_per_step} "
                f"frames from a step before them, but a crop has only "
                f"{frames.shape[2]} frames; make global_seconds longer, or "
                "`steps` or `frames_per_step` smaller"
            )
        frames = frames[:, :, : count * self.frames_per_step].float()
        return frames.unflatten(2, (count, self.frames_per_step)).mean(3)
