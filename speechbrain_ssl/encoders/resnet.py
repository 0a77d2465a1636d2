"""ResNet-34 and the fast ResNet-34, with exact lengths.

``ResNet34`` has the layers of WeSpeaker's ``ResNet34`` (a 3 x 3 stem without
pooling, basic blocks of 32 to 256 channels, statistics pooling over channels
and bands, one linear layer): 6.63 M parameters for 80 bands and 256
dimensions. ``FastResNet34`` has those of the *fast ResNet-34* of Chung et al.
(2020, arXiv 2003.11982), which the SSPS paper trains: a quarter of ResNet's
channels, a stem that halves the bands, squeeze and excitation, self-attentive
pooling: 1.4 M parameters.

They are called as ``FastECAPA`` is, and as there an embedding does not depend
on its neighbours in a batch: with ``lengths`` whatever lies behind the end of
an utterance is zero before every convolution, which is what its own border
would be padded with, and no mean counts it.

Where they differ from the originals, on purpose:

* standard deviations divide by the number of frames (WeSpeaker: by one less)
  and are clamped at 1e-6 (WeSpeaker adds 1e-7 to the variance; the fast one's
  attentive statistics were clamped at 1e-5 under the root). So one frame is
  enough, and SpeechBrain's pooling layer, which an export uses, gives the same
  values;
* the fast one has no layer that normalises its input by mean *and* deviation:
  the features subtract the mean;
* any number of bands: an odd number of rows is halved upwards.

SpeechBrain's own ``lobes.models.ResNet`` is another network (pre-activation,
squeeze and excitation in two stages, a third convolution in every block, 15 M
parameters) and cannot hold these weights. How they are exported all the same is
in ``speechbrain_ssl/publishing/stock.py``.
"""

import torch
import torch.nn.functional as F

from speechbrain_ssl.checks import check_choice

# As in SpeechBrain's attentive statistics.
_EPS = 1e-12


class _Valid:
    """Number of frames that belong to the utterance, for each row."""

    def __init__(self, frames):
        self.frames = frames.view(-1, 1, 1, 1)

    @classmethod
    def of(cls, x, lengths):
        """Count frames from ``[batch, frames, bands]`` and relative lengths."""
        # Rounded, not rounded up: 300 / 500 * 500 is 300.00003 in fp32.
        frames = (lengths.to(x.device) * x.shape[1]).round().long()
        return cls(frames.clamp(1, x.shape[1]))

    def stride(self, step):
        """Return what is valid after a padded convolution of this stride."""
        return self if step == 1 else _Valid((self.frames - 1) // step + 1)

    def mask(self, x):
        """Return true for valid frames, bool ``[batch, 1, 1, frames]``."""
        index = torch.arange(x.shape[3], device=x.device)
        return index < self.frames

    def clear(self, x):
        """Set whatever lies behind the end to zero."""
        return x.masked_fill(~self.mask(x), 0)


def _clear(x, valid):
    return x if valid is None else valid.clear(x)


def _time_mean(x, valid):
    """Average ``[batch, channels, bands, frames]`` over valid frames."""
    if valid is None:
        return x.mean(3)
    # Zero behind the end already.
    return x.sum(3) / valid.frames.squeeze(3)


def _conv(inputs, outputs, kernel, stride=1):
    return torch.nn.Conv2d(
        inputs, outputs, kernel, stride, kernel // 2, bias=False
    )


def _shortcut(inputs, outputs, stride):
    """Make the shortcut of a block, or None if the shape stays the same."""
    if stride == 1 and inputs == outputs:
        return None
    return torch.nn.Sequential(
        _conv(inputs, outputs, 1, stride), torch.nn.BatchNorm2d(outputs)
    )


def _rows(bands, strides):
    """Return how many rows the strides leave of so many bands."""
    for stride in strides:
        bands = (bands - 1) // stride + 1
    return bands


class BasicBlock(torch.nn.Module):
    """Two convolutions and a shortcut (He et al., 2015, arXiv 1512.03385).

    Arguments
    ---------
    inputs, outputs : int
        Channels.
    stride : int
        Over bands and frames.
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
        """Return the output and what of it is valid.

        Arguments
        ---------
        x : torch.Tensor
            ``[batch, inputs, bands, frames]``, zero behind the ends.
        valid : _Valid, optional
            Where the ends are.

        Returns
        -------
        tuple
            ``[batch, outputs, bands, frames]``, and its ``valid``.
        """
        residual = x if self.shortcut is None else self.shortcut(x)
        if valid is not None:
            valid = valid.stride(self.stride)
        x = F.relu_(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(_clear(x, valid)))
        return _clear(F.relu_(x + residual), valid), valid


class SqueezeExcitation(torch.nn.Module):
    """Gates of the channels by their means (Hu et al., arXiv 1709.01507).

    Arguments
    ---------
    channels : int
        Channels.
    reduction : int
        How many times narrower the hidden layer is.
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
    """The block of the fast ResNet-34: ReLU before the norm, and gates.

    Arguments
    ---------
    inputs, outputs, stride
        Those of ``BasicBlock``.
    """

    def __init__(self, inputs, outputs, stride=1):
        super().__init__(inputs, outputs, stride)
        self.se = SqueezeExcitation(outputs)

    def forward(self, x, valid=None):
        """As ``BasicBlock.forward``."""
        residual = x if self.shortcut is None else self.shortcut(x)
        if valid is not None:
            valid = valid.stride(self.stride)
        x = self.bn1(F.relu_(self.conv1(x)))
        x = self.bn2(self.conv2(_clear(x, valid)))
        x = self.se(x, valid)
        return _clear(F.relu_(x + residual), valid), valid


class _ResNet(torch.nn.Module):
    """Base of both: a stem, four stages, pooling, a linear layer.

    ``stem`` is a convolution of one channel, ``kind`` the class of the blocks,
    ``pooled`` what the linear layer receives.
    """

    def __init__(
        self, input_size, stem, kind, strides, blocks, pooled, lin_neurons
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

    def last_affine(self):
        """Return the layer that makes the embedding."""
        return self.fc

    @property
    def arguments(self):
        """Arguments that make the same encoder (for an export)."""
        return {
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
            one, as SpeechBrain passes it. Without it all frames count.

        Returns
        -------
        torch.Tensor
            Embeddings ``[batch, 1, lin_neurons]``.
        """
        valid = None if lengths is None else _Valid.of(x, lengths)
        x = _clear(x.transpose(1, 2).unsqueeze(1), valid)
        x = _clear(F.relu_(self.bn1(self.conv1(x))), valid)
        for stage in self.stages:
            for block in stage:
                x, valid = block(x, valid)
        # Deviations of bf16 would be rounding.
        pooled = self.pool(x.float(), valid)
        return self.fc(pooled).unsqueeze(1)


class ResNet34(_ResNet):
    """ResNet-34 with statistics pooling, as WeSpeaker's.

    Arguments
    ---------
    input_size : int
        Bands of the features.
    lin_neurons : int
        Size of the embedding.
    channels : int
        Channels of the first stage; each further stage has twice as many.
    blocks : list of int
        Number of blocks in each of the four stages.

    Example
    -------
    >>> encoder = ResNet34(80, lin_neurons=256)
    >>> round(sum(p.numel() for p in encoder.parameters()) / 1e6, 2)
    6.63
    >>> encoder(torch.rand(2, 40, 80)).shape
    torch.Size([2, 1, 256])
    """

    def __init__(
        self, input_size=80, lin_neurons=256, channels=32, blocks=(3, 4, 6, 3)
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
        )

    def pool(self, x, valid=None):
        """Pool every channel in every row: mean and deviation over time.

        Arguments
        ---------
        x : torch.Tensor
            ``[batch, channels, rows, frames]``, zero behind the ends.
        valid : _Valid, optional
            Where the ends are.

        Returns
        -------
        torch.Tensor
            ``[batch, 2 * channels * rows]``.
        """
        mean = _time_mean(x, valid)
        square = _clear(x - mean.unsqueeze(3), valid).square()
        std = _time_mean(square, valid).clamp(min=_EPS).sqrt()
        return torch.cat([mean.flatten(1), std.flatten(1)], dim=1)


class FastResNet34(_ResNet):
    """The fast ResNet-34 (Chung et al., 2020, arXiv 2003.11982).

    Arguments
    ---------
    input_size : int
        Bands of the features. No weight depends on it.
    lin_neurons, channels, blocks
        As in ``ResNet34``.
    pooling : str
        ``"sap"``: self-attentive pooling, a weighted mean over time (Cai et
        al., 2018, arXiv 1804.05160); ``"asp"``: the weighted deviation beside
        it (Okabe et al., 2018, arXiv 1803.10963).

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
    ):
        check_choice("FastResNet34", "pooling", pooling, ("sap", "asp"))
        last = 8 * channels
        super().__init__(
            input_size,
            # Half the bands, all the frames.
            stem=_conv(1, channels, 7, (2, 1)),
            kind=GatedBlock,
            strides=(1, 2, 2, 1),
            blocks=blocks,
            pooled=last if pooling == "sap" else 2 * last,
            lin_neurons=lin_neurons,
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
        """Pool the mean over rows: attentive mean, and deviation, over time.

        Arguments
        ---------
        x, valid
            As of ``ResNet34.pool``.

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
