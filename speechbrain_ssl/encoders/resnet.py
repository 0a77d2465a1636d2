"""ResNet-34 and the fast ResNet-34, with exact handling of padding.

``ResNet34`` has the layers of WeSpeaker's ``ResNet34`` (a 3 x 3 stem without
pooling, basic blocks of 32 to 256 channels, statistics pooling over channels
and bands, one linear layer): 6.63 M parameters for 80 bands and 256
dimensions. ``FastResNet34`` has the layers of the *fast ResNet-34* of Chung et
al. (2020, arXiv 2003.11982), which the SSPS paper trains (a quarter of ResNet's
channels, a stem that halves the bands, squeeze and excitation, self-attentive
pooling): 1.4 M parameters.

They have the interface of ``FastECAPA``, and here too an embedding does not
depend on the other utterances in the batch. With ``lengths``, everything after
the end of an utterance is set to zero before every convolution, as if the
utterance's own border were padded, and is left out of every mean.

Deliberate differences from the originals:

* Standard deviations divide by the number of frames (WeSpeaker: by one less)
  and are clamped at 1e-6 (WeSpeaker adds 1e-7 to the variance; the fast
  ResNet's attentive statistics were clamped at 1e-5 under the square root). One
  frame is thus enough, and SpeechBrain's pooling layer, which an export uses,
  computes the same values.
* The fast ResNet has no layer that normalises its input by mean *and*
  deviation: the features subtract the mean.
* Any number of bands is allowed: halving an odd number of rows rounds up.

SpeechBrain's own ``lobes.models.ResNet`` is a different network
(pre-activation, squeeze and excitation in two stages, a third convolution in
every block, 15 M parameters) and cannot hold these weights.
``speechbrain_ssl/publishing/stock.py`` describes how they are exported
nevertheless.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_choice

# As in SpeechBrain's attentive statistics.
_EPS = 1e-12


class _Valid:
    """Track how many frames of each row of a batch belong to its utterance."""

    def __init__(self, frames):
        self.frames = frames.view(-1, 1, 1, 1)

    @classmethod
    def of(cls, x, lengths):
        """Count frames from ``[batch, frames, bands]`` and relative lengths."""
        # Rounded, not rounded up: 300 / 500 * 500 is 300.00003 in fp32.
        frames = (lengths.to(x.device) * x.shape[1]).round().long()
        return cls(frames.clamp(1, x.shape[1]))

    def stride(self, step):
        """Return the valid frames after a padded convolution of this stride."""
        return self if step == 1 else _Valid((self.frames - 1) // step + 1)

    def mask(self, x):
        """Return True for valid frames, bool ``[batch, 1, 1, frames]``."""
        index = torch.arange(x.shape[3], device=x.device)
        return index < self.frames

    def clear(self, x):
        """Set all frames after the end of an utterance to zero."""
        return x.masked_fill(~self.mask(x), 0)


def _clear(x, valid):
    return x if valid is None else valid.clear(x)


def _time_mean(x, valid):
    """Average ``[batch, channels, bands, frames]`` over valid frames."""
    if valid is None:
        return x.mean(3)
    # Frames after the end are zero already, so a plain sum suffices.
    return x.sum(3) / valid.frames.squeeze(3)


def _conv(inputs, outputs, kernel, stride=1):
    return torch.nn.Conv2d(
        inputs, outputs, kernel, stride, kernel // 2, bias=False
    )


def _shortcut(inputs, outputs, stride):
    """Make a block's projection shortcut, or None if shapes are equal."""
    if stride == 1 and inputs == outputs:
        return None
    return torch.nn.Sequential(
        _conv(inputs, outputs, 1, stride), torch.nn.BatchNorm2d(outputs)
    )


def _rows(bands, strides):
    """Return the number of rows that the strides leave of ``bands``."""
    for stride in strides:
        bands = (bands - 1) // stride + 1
    return bands


class BasicBlock(torch.nn.Module):
    """Apply two convolutions and a shortcut.

    He et al., 2015 (arXiv 1512.03385).

    Arguments
    ---------
    inputs, outputs : int
        Numbers of input and output channels.
    stride : int
        Stride over bands and frames.
    """

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.stride = stride
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = torch.nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.bn2 = torch.nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x, valid=None):
        """Compute the block's output and its valid frames.

        Arguments
        ---------
        x : torch.Tensor
            ``[batch, inputs, bands, frames]``, zero after each utterance's end.
        valid : _Valid, optional
            The valid frames; all if None.

        Returns
        -------
        tuple
            The output, ``[batch, outputs, bands, frames]``, and its valid
            frames.
        """
        residual = x if self.shortcut is None else self.shortcut(x)
        if valid is not None:
            valid = valid.stride(self.stride)
        x = F.relu_(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(_clear(x, valid)))
        return _clear(F.relu_(x + residual), valid), valid


class SqueezeExcitation(torch.nn.Module):
    """Gate channels by their means (Hu et al., arXiv 1709.01507).

    Arguments
    ---------
    channels : int
        Number of channels.
    reduction : int
        Factor by which the hidden layer is narrower.
    """

    def __init__(self, channels, reduction=8):
        super().__init__()
        self.down = torch.nn.Linear(channels, channels // reduction)
        self.up = torch.nn.Linear(channels // reduction, channels)

    def forward(self, x, valid=None):
        """Scale the channels of ``[batch, channels, bands, frames]``."""
        mean = _time_mean(_clear(x, valid), valid).mean(2)
        gate = torch.sigmoid(self.up(F.relu(self.down(mean))))
        return x * gate[:, :, None, None]


class GatedBlock(BasicBlock):
    """Apply the fast ResNet-34's block: ReLU before batch norm, and gates.

    Arguments
    ---------
    inputs, outputs, stride
        As in ``BasicBlock``.
    """

    def __init__(self, inputs, outputs, stride=1):
        super().__init__(inputs, outputs, stride)
        self.se = SqueezeExcitation(outputs)

    def forward(self, x, valid=None):
        """Compute the output and its valid frames; see ``BasicBlock``."""
        residual = x if self.shortcut is None else self.shortcut(x)
        if valid is not None:
            valid = valid.stride(self.stride)
        x = self.bn1(F.relu_(self.conv1(x)))
        x = self.bn2(self.conv2(_clear(x, valid)))
        x = self.se(x, valid)
        return _clear(F.relu_(x + residual), valid), valid


class ResNetBase(torch.nn.Module):
    """Provide the base of all ResNets: stem, four stages, pooling, linear.

    ``stem`` is a convolution, with one input channel for audio, ``kind`` the class of the
    blocks, and ``pooled`` the input size of the linear layer. The other
    arguments are those of ``ResNet34``.
    """

    def __init__(
        self,
        input_size,
        stem,
        kind,
        strides,
        blocks,
        pooled,
        lin_neurons,
        embedding_batch_norm,
    ):
        super().__init__()
        self.input_size = input_size
        channels = stem.out_channels
        self.conv1 = stem
        self.bn1 = torch.nn.BatchNorm2d(channels)
        inputs, stages = channels, []
        for number, stride in zip(blocks, strides, strict=True):
            layers = []
            for i in range(number):
                layers.append(kind(inputs, channels, stride if i == 0 else 1))
                inputs = channels
            stages.append(torch.nn.ModuleList(layers))
            channels *= 2
        self.stages = torch.nn.ModuleList(stages)
        self.fc = torch.nn.Linear(pooled, lin_neurons)
        self.embedding_norm = None
        if embedding_batch_norm:
            self.embedding_norm = torch.nn.BatchNorm1d(lin_neurons)

    @property
    def needs_two_rows(self):
        """Whether training needs more than one row in a batch."""
        return self.embedding_norm is not None

    def last_affine(self):
        """Return the layer that computes the embedding, with its norm."""
        if self.embedding_norm is None:
            return self.fc
        return torch.nn.ModuleList([self.fc, self.embedding_norm])

    @property
    def arguments(self):
        """Arguments that make the same encoder (for an export)."""
        normed = {"embedding_batch_norm": True} if self.embedding_norm else {}
        return {
            **normed,
            "input_size": self.input_size,
            "lin_neurons": self.fc.out_features,
            "channels": self.conv1.out_channels,
            "blocks": [len(stage) for stage in self.stages],
        }

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
        valid = None if lengths is None else _Valid.of(x, lengths)
        x = _clear(x.transpose(1, 2).unsqueeze(1), valid)
        return self.embed(x, valid)

    def embed(self, x, valid=None):
        """Embed a batch of images ``[batch, channels, rows, columns]``.

        Arguments
        ---------
        x : torch.Tensor
            The images; of audio, the bands are the rows, and the frames, zero
            after each utterance's end, the columns.
        valid : _Valid, optional
            The valid frames; all if None.

        Returns
        -------
        torch.Tensor
            Embeddings ``[batch, 1, lin_neurons]``.
        """
        x = _clear(F.relu_(self.bn1(self.conv1(x))), valid)
        for stage in self.stages:
            for block in stage:
                x, valid = block(x, valid)
        # In bf16, standard deviations would be dominated by rounding.
        x = self.fc(self.pool(x.float(), valid))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return x.unsqueeze(1)


class ResNet34(ResNetBase):
    """Embed features with WeSpeaker's ResNet-34 and statistics pooling.

    Arguments
    ---------
    input_size : int
        Number of bands of the features.
    lin_neurons : int
        Size of the embedding.
    channels : int
        Channels of the first stage; each later stage doubles the number.
    blocks : list of int
        Number of blocks in each of the four stages.
    embedding_batch_norm : bool
        Whether the embedding passes a batch norm with scale and shift, as in
        hyperion's x-vectors and DINO. An export for stock SpeechBrain folds it
        into the linear layer.

    Example
    -------
    >>> encoder = ResNet34(80, lin_neurons=256)
    >>> round(sum(p.numel() for p in encoder.parameters()) / 1e6, 2)
    6.63
    >>> encoder(torch.rand(2, 40, 80)).shape
    torch.Size([2, 1, 256])
    """

    def __init__(
        self,
        input_size=80,
        lin_neurons=256,
        channels=32,
        blocks=(3, 4, 6, 3),
        embedding_batch_norm=False,
    ):
        strides = (1, 2, 2, 2)
        super().__init__(
            input_size,
            stem=_conv(1, channels, 3),
            kind=BasicBlock,
            strides=strides,
            blocks=blocks,
            pooled=2 * 8 * channels * _rows(input_size, strides),
            lin_neurons=lin_neurons,
            embedding_batch_norm=embedding_batch_norm,
        )

    def pool(self, x, valid=None):
        """Compute each channel's and row's mean and deviation over time.

        Arguments
        ---------
        x : torch.Tensor
            ``[batch, channels, rows, frames]``, zero after each utterance's
            end.
        valid : _Valid, optional
            The valid frames; all if None.

        Returns
        -------
        torch.Tensor
            ``[batch, 2 * channels * rows]``.
        """
        mean = _time_mean(x, valid)
        square = _clear(x - mean.unsqueeze(3), valid).square()
        std = _time_mean(square, valid).clamp(min=_EPS).sqrt()
        return torch.cat([mean.flatten(1), std.flatten(1)], dim=1)


class FastResNet34(ResNetBase):
    """Embed features with the fast ResNet-34.

    Chung et al., 2020 (arXiv 2003.11982).

    Arguments
    ---------
    input_size : int
        Number of bands of the features. No weight depends on it.
    lin_neurons, channels, blocks
        As in ``ResNet34``.
    pooling : str
        ``"sap"``: self-attentive pooling, a weighted mean over time (Cai et
        al., 2018, arXiv 1804.05160). ``"asp"``: attentive statistics pooling,
        which adds the weighted deviation (Okabe et al., 2018, arXiv
        1803.10963).
    embedding_batch_norm : bool
        As in ``ResNet34``.

    Raises
    ------
    ConfigError
        If the pooling is unknown.

    Example
    -------
    >>> encoder = FastResNet34(40, lin_neurons=512)
    >>> round(sum(p.numel() for p in encoder.parameters()) / 1e6, 1)
    1.4
    >>> encoder(torch.rand(2, 40, 40)).shape
    torch.Size([2, 1, 512])
    """

    def __init__(
        self,
        input_size=40,
        lin_neurons=512,
        channels=16,
        blocks=(3, 4, 6, 3),
        pooling="sap",
        embedding_batch_norm=False,
    ):
        check_choice("FastResNet34", "pooling", pooling, ("sap", "asp"))
        last = 8 * channels
        super().__init__(
            input_size,
            # Stride 2 over bands, 1 over frames.
            stem=_conv(1, channels, 7, (2, 1)),
            kind=GatedBlock,
            strides=(1, 2, 2, 1),
            blocks=blocks,
            pooled=last if pooling == "sap" else 2 * last,
            lin_neurons=lin_neurons,
            embedding_batch_norm=embedding_batch_norm,
        )
        self.pooling = pooling
        self.attention_hidden = torch.nn.Linear(last, last)
        self.attention = torch.nn.Linear(last, 1, bias=False)
        for module in self.modules():
            # As in both published implementations.
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu"
                )
        torch.nn.init.xavier_normal_(self.attention.weight)

    @property
    def arguments(self):
        """Arguments that make the same encoder (for an export)."""
        return {**super().arguments, "pooling": self.pooling}

    def pool(self, x, valid=None):
        """Average over rows, then pool over time with attention.

        Arguments
        ---------
        x, valid
            As in ``ResNet34.pool``.

        Returns
        -------
        torch.Tensor
            ``[batch, channels]``, with ``"asp"`` ``[batch, 2 * channels]``.
        """
        frames = x.mean(2).transpose(1, 2)
        scores = self.attention(torch.tanh(self.attention_hidden(frames)))
        scores = scores.float()
        if valid is not None:
            outside = ~valid.mask(x).view(len(x), -1, 1)
            scores = scores.masked_fill(outside, float("-inf"))
        weights = torch.softmax(scores, dim=1)
        mean = (weights * frames).sum(1, keepdim=True)
        if self.pooling == "sap":
            return mean.squeeze(1)
        variance = (weights * (frames - mean).square()).sum(1)
        std = variance.clamp(min=_EPS).sqrt()
        return torch.cat([mean.squeeze(1), std], dim=1)
