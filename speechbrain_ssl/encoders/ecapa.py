"""ECAPA-TDNN with SpeechBrain's parameters and a faster forward pass.

``FastECAPA`` has the constructor, the state dictionary and the outputs of
SpeechBrain's ``ECAPA_TDNN``, so checkpoints are interchangeable, unless the
embedding is to be batch-normalised (``embedding_batch_norm``). Otherwise only
the order of the arithmetic differs:

* A convolution with kernel 1 is not padded (the stock one copies its input).
* The attention of the pooling layer never builds its 9C-channel input: of
  ``W [x; mean; std]`` only ``W_x x`` depends on time, the rest is a vector.
* Without ``lengths`` no mask is built or multiplied.
* With ``lengths`` every utterance is reflected at *its own* end. In the stock
  forward pass the convolutions see the padding, so that an embedding depends on
  the other utterances in the batch; here it equals that of the utterance alone.

Measured on one core of an Intel Xeon with AMX (ECAPA-512, 32 crops of 3 s,
forward and backward, CPU seconds, both with the allocator of
``speechbrain_ssl.runtime``): 1.3 times faster than stock in fp32, 1.5 times
with bf16 autocast, which makes it 2.3 times faster than stock in fp32.
"""

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

from speechbrain_ssl.errors import ConfigError

# The clamp under the square root of the standard deviations, as in the stock
# pooling layer.
_EPS = 1e-12


class FastECAPA(ECAPA_TDNN):
    """Embed features with ECAPA-TDNN, faster than the stock module.

    Desplanques et al., 2020 (arXiv 2005.07143).

    Arguments
    ---------
    *args, **kwargs
        Passed to ``speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN``.
    embedding_batch_norm : bool
        Whether the embedding passes a batch norm with scale and shift, as in
        WeSpeaker's DINO recipe (its ``emb_bn``). An export for stock
        SpeechBrain folds it into the last layer.

    Attributes
    ----------
    embedding_norm : torch.nn.BatchNorm1d or None
        That batch norm.
    needs_two_rows : bool
        Whether training needs more than one row in a batch: always, since the
        pooled statistics are batch-normalised.

    Raises
    ------
    ConfigError
        If the sizes do not fit each other.

    Example
    -------
    >>> encoder = FastECAPA(80, channels=[16, 16, 16, 16, 48], lin_neurons=8)
    >>> encoder(torch.rand(2, 120, 80)).shape
    torch.Size([2, 1, 8])
    """

    needs_two_rows = True

    def __init__(self, *args, embedding_batch_norm=False, **kwargs):
        try:
            super().__init__(*args, **kwargs)
        except AssertionError as error:
            raise ConfigError(
                "ECAPA-TDNN's `channels` must be multiples of `res2net_scale` "
                "(8 unless set) and as many as `kernel_sizes` and `dilations`; "
                f"got {kwargs.get('channels')}"
            ) from error
        self.embedding_norm = None
        if embedding_batch_norm:
            size = self.fc.conv.out_channels
            self.embedding_norm = torch.nn.BatchNorm1d(size)

    @property
    def arguments(self):
        """Return the constructor's arguments, read off the modules."""
        first, *middle = self.blocks
        res2net = [block.res2net_block for block in middle]
        layers = [first, *(block.tdnn1 for block in middle), self.mfa]
        inner = [first, *(block.blocks[0] for block in res2net), self.mfa]
        normed = {"embedding_batch_norm": True} if self.embedding_norm else {}
        return {
            "input_size": first.conv.conv.in_channels,
            "lin_neurons": self.fc.conv.out_channels,
            "activation": type(first.activation),
            "channels": [block.conv.conv.out_channels for block in layers],
            "kernel_sizes": [block.conv.kernel_size for block in inner],
            "dilations": [block.conv.dilation for block in inner],
            "attention_channels": self.asp.tdnn.conv.conv.out_channels,
            "res2net_scale": res2net[0].scale,
            "se_channels": middle[0].se_block.conv1.conv.out_channels,
            "global_context": self.asp.global_context,
            "groups": [block.conv.conv.groups for block in layers],
            "dropout": first.dropout.p,
            **normed,
        }

    def last_affine(self):
        """Return the layer that computes the embedding, with its norm."""
        if self.embedding_norm is None:
            return self.fc
        return torch.nn.ModuleList([self.fc, self.embedding_norm])

    @classmethod
    def from_stock(cls, stock):
        """Turn a loaded ``ECAPA_TDNN`` into a ``FastECAPA``, in place.

        Arguments
        ---------
        stock : speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
            The model. Its modules and parameters remain the same objects.

        Returns
        -------
        FastECAPA
            The same object, ``stock``.
        """
        stock.__class__ = cls
        stock.embedding_norm = None
        return stock

    def forward(self, x, lengths=None):
        """Embed a batch of feature sequences.

        Arguments
        ---------
        x : torch.Tensor
            Features ``[batch, frames, features]``.
        lengths : torch.Tensor, optional
            Relative length of each utterance ``[batch]``, 1.0 for the longest
            one, as SpeechBrain passes it. Without it all frames are valid.

        Returns
        -------
        torch.Tensor
            Embeddings ``[batch, 1, lin_neurons]``.
        """
        x = x.transpose(1, 2)
        valid = _Valid(x, lengths) if lengths is not None else None
        return self._embed(self._frames(x, valid), valid)

    def with_frames(self, x):
        """Embed a batch, and also return the frames before pooling.

        Arguments
        ---------
        x : torch.Tensor
            Features ``[batch, frames, features]``; all frames are valid.

        Returns
        -------
        tuple of torch.Tensor
            The embeddings as ``forward`` returns them, and the output of the
            multi-layer feature aggregation for each frame, ``[batch, frames,
            channels]``, with the last entry of the constructor's ``channels``.

        Example
        -------
        >>> encoder = FastECAPA(80, channels=[16] * 4 + [48], lin_neurons=8)
        >>> embeddings, frames = encoder.with_frames(torch.rand(2, 120, 80))
        >>> frames.shape
        torch.Size([2, 120, 48])
        """
        frames = self._frames(x.transpose(1, 2), None)
        return self._embed(frames, None), frames.transpose(1, 2)

    def _frames(self, x, valid):
        """Compute the aggregated layers, ``[batch, channels, frames]``."""
        x = _tdnn(self.blocks[0], x, valid)
        outputs = []
        for block in self.blocks[1:]:
            x = _se_res2net(block, x, valid)
            outputs.append(x)
        return _tdnn(self.mfa, torch.cat(outputs, dim=1), valid)

    def _embed(self, frames, valid):
        """Pool frames into embeddings ``[batch, 1, lin_neurons]``."""
        x = self.asp_bn.norm(_pool(self.asp, frames, valid).unsqueeze(2))
        x = F.linear(
            x.squeeze(2), self.fc.conv.weight.squeeze(2), self.fc.conv.bias
        )
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return x.unsqueeze(1)


class _Valid:
    """Track which frames of a padded batch belong to an utterance."""

    def __init__(self, x, lengths):
        batch, _, frames = x.shape
        # Rounded, not rounded up: 300 / 500 * 500 is 300.00003 in fp32.
        self.frames = (lengths.to(x.device) * frames).round().long()
        self.frames = self.frames.clamp(1, frames).view(batch, 1, 1)
        self.mask = (
            torch.arange(frames, device=x.device).view(1, 1, -1) < self.frames
        )

    def mean(self, x):
        """Average over the valid frames, ``[batch, channels, 1]``."""
        return (x * self.mask).sum(2, keepdim=True) / self.frames

    def reflect(self, padded, x, padding):
        """Write each utterance's own reflection after its last frame.

        ``padded`` is ``x`` padded on both sides; it is modified in place.
        """
        step = torch.arange(padding, device=x.device).view(1, 1, -1)
        source = (self.frames - 2 - step).clamp(min=0)
        target = self.frames + padding + step
        shape = (x.shape[0], x.shape[1], padding)
        return padded.scatter_(
            2, target.expand(shape), x.gather(2, source.expand(shape))
        )


def _conv(conv, x, valid):
    """Apply SpeechBrain's ``Conv1d`` with "same" reflect padding."""
    kernel, dilation = conv.kernel_size, conv.dilation
    if kernel > 1:
        padding = dilation * (kernel - 1) // 2
        # CPU autocast would pad in fp32, with a copy there and one back.
        with torch.autocast(x.device.type, enabled=False):
            padded = F.pad(x, (padding, padding), mode="reflect")
        if valid is not None:
            padded = valid.reflect(padded, x, padding)
        x = padded
    inner = conv.conv
    return F.conv1d(
        x, inner.weight, inner.bias, dilation=dilation, groups=inner.groups
    )


def _tdnn(block, x, valid):
    """Apply convolution, activation, batch norm and dropout."""
    x = _conv(block.conv, x, valid)
    if isinstance(block.activation, torch.nn.ReLU):
        # A convolution's backward needs its input, not its output.
        x = F.relu_(x)
    else:
        x = block.activation(x)
    x = block.norm.norm(x)
    if block.dropout.p > 0:
        x = block.dropout(x)
    return x


def _se_res2net(block, x, valid):
    """Apply TDNN, Res2Net, TDNN, squeeze and excitation, and the residual."""
    residual = x if block.shortcut is None else block.shortcut.conv(x)
    x = _tdnn(block.tdnn1, x, valid)
    parts = list(torch.chunk(x, block.res2net_block.scale, dim=1))
    for i, inner in enumerate(block.res2net_block.blocks, start=1):
        source = parts[i] if i == 1 else parts[i] + parts[i - 1]
        parts[i] = _tdnn(inner, source, valid)
    x = _tdnn(block.tdnn2, torch.cat(parts, dim=1), valid)
    squeezed = x.mean(2, keepdim=True) if valid is None else valid.mean(x)
    gate = F.relu(block.se_block.conv1.conv(squeezed))
    gate = torch.sigmoid(block.se_block.conv2.conv(gate))
    return torch.addcmul(residual, gate.to(x.dtype), x)


def _pool(pooling, x, valid):
    """Compute attentive statistics, ``[batch, 2 * channels]``."""
    channels = x.shape[1]
    tdnn = pooling.tdnn
    # Variances are E[y^2] - E[y]^2 with y = x - x_0. That saves one pass over
    # [batch, channels, frames] compared with E[(x - E[x])^2], and is exact for
    # a channel that is constant in time (a dead ReLU), as the stock layer is.
    first = x[:, :, :1].detach().float()
    centered = x.float() - first
    weight, bias = tdnn.conv.conv.weight, tdnn.conv.conv.bias
    if pooling.global_context:
        # torch.var_mean would be several times slower on a CPU.
        if valid is None:
            mean = centered.mean(2, keepdim=True)
            square = centered.square().mean(2, keepdim=True)
        else:
            mean = valid.mean(centered)
            square = valid.mean(centered.square())
        std = (square - mean.square()).clamp(min=_EPS).sqrt()
        context = F.conv1d(
            torch.cat([first + mean, std], dim=1).to(x.dtype),
            weight[:, channels:],
            bias,
        )
        hidden = F.conv1d(x, weight[:, :channels]) + context
    else:
        hidden = F.conv1d(x, weight, bias)
    hidden = torch.tanh(tdnn.norm.norm(tdnn.activation(hidden)))
    scores = pooling.conv.conv(hidden).float()
    if valid is not None:
        scores = scores.masked_fill(~valid.mask, float("-inf"))
    weights = torch.softmax(scores, dim=2)
    weighted = weights * centered
    mean = weighted.sum(2)
    variance = (weighted * centered).sum(2) - mean.square()
    return torch.cat(
        [first.squeeze(2) + mean, variance.clamp(min=_EPS).sqrt()], dim=1
    )
