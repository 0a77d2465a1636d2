"""Back ends that pool the hidden states of a pre-trained model.

``MHFA`` is the multi-head factorised attentive pooling of Peng et al. (2022,
arXiv 2210.01273), which Miara et al. (2024, arXiv 2406.02285) train on
pseudo-labels. ``AdapterMFA`` is the pooling of the w2v-BERT 2.0 recipes. Both
have the interface of the other encoders (``forward``, ``last_affine``,
``arguments``), but take waveforms instead of features: configure
``features/waveform.yaml``.
"""

import copy

import torch
from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling

from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.errors import ConfigError


def weighted_sum(states, logits):
    """Sum hidden states with the softmax of trained logits.

    Arguments
    ---------
    states : tuple of torch.Tensor
        ``[batch, frames, size]`` each.
    logits : torch.Tensor
        One number for each state.

    Returns
    -------
    torch.Tensor
        ``[batch, frames, size]``.
    """
    weights = torch.softmax(logits, dim=0)
    # Not stacked: that would copy all states.
    return sum(w * state for w, state in zip(weights, states, strict=True))


class PretrainedEncoder(torch.nn.Module):
    """Embed waveforms with a pre-trained front end; a subclass pools.

    Arguments
    ---------
    front_end : speechbrain_ssl.encoders.pretrained.PretrainedFrontEnd
        The front end.
    """

    takes_waveforms = True
    needs_two_rows = False
    embedding_norm = None

    def __init__(self, front_end):
        super().__init__()
        self.front_end = front_end

    def pool(self, states):
        """Map hidden states to embeddings, ``[batch, embedding size]``."""
        raise NotImplementedError

    def forward(self, x, lengths=None):
        """Embed a batch of waveforms.

        Arguments
        ---------
        x : torch.Tensor
            ``[batch, samples]`` at 16 kHz.
        lengths : torch.Tensor, optional
            Relative length of each waveform ``[batch]``, 1.0 for the longest
            one. Those of equal length are embedded together and without
            padding, so that an embedding does not depend on its batch.

        Returns
        -------
        torch.Tensor
            Embeddings ``[batch, 1, embedding size]``.
        """
        if x.dim() != 2:
            raise ConfigError(
                f"{type(self).__name__} takes waveforms, not features; include "
                "features/waveform.yaml as `features_block`"
            )
        if lengths is None:
            return self.pool(self.front_end(x)).unsqueeze(1)
        # Rounded, not rounded up: 300 / 500 * 500 is 300.00003 in fp32.
        samples = (lengths * x.shape[1]).round().long().tolist()
        rows = [None] * len(x)
        for count in set(samples):
            alike = [i for i, n in enumerate(samples) if n == count]
            found = self.pool(self.front_end(x[alike, :count]))
            for i, row in zip(alike, found, strict=True):
                rows[i] = row
        return torch.stack(rows).unsqueeze(1)

    def last_affine(self):
        """Return the layer that computes the embedding."""
        return self.fc

    def merged(self):
        """Return the encoder without adapters, for an export."""
        if self.front_end.trains != "lora":
            return self
        plain = copy.copy(self)
        plain._modules = {**self._modules, "front_end": self.front_end.merged()}
        return plain

    @property
    def arguments(self):
        """Arguments that make the same encoder (for an export)."""
        return {"front_end": self.front_end.description, **self._settings}


class MHFA(PretrainedEncoder):
    """Pool with heads that attend to one sum of layers and read another.

    For hidden states ``h_l`` and trained weights of layers that add up to 1::

        k_t = A_k sum_l w^k_l h_l,t        v_t = A_v sum_l w^v_l h_l,t
        a_t,i = softmax over t of (Q k_t)_i
        embedding = W [sum_t a_t,1 v_t; ...; sum_t a_t,H v_t]

    Arguments
    ---------
    front_end : speechbrain_ssl.encoders.pretrained.PretrainedFrontEnd
        The front end.
    heads : int
        Number of heads ``H`` (Miara et al.: 64).
    compression : int
        Size of keys and values.
    lin_neurons : int
        Size of the embedding.
    """

    def __init__(self, front_end, heads=64, compression=128, lin_neurons=256):
        super().__init__(front_end)
        self._settings = {
            "heads": heads,
            "compression": compression,
            "lin_neurons": lin_neurons,
        }
        states, size = front_end.states, front_end.size
        self.key_layers = torch.nn.Parameter(torch.ones(states))
        self.value_layers = torch.nn.Parameter(torch.ones(states))
        self.key = torch.nn.Linear(size, compression)
        self.value = torch.nn.Linear(size, compression)
        self.attention = torch.nn.Linear(compression, heads)
        self.fc = torch.nn.Linear(heads * compression, lin_neurons)

    def pool(self, states):
        """Map hidden states to embeddings, ``[batch, embedding size]``."""
        keys = self.key(weighted_sum(states, self.key_layers))
        values = self.value(weighted_sum(states, self.value_layers))
        weights = torch.softmax(self.attention(keys), dim=1)
        pooled = torch.einsum("bth,btc->bhc", weights, values)
        return self.fc(pooled.flatten(1))


class AdapterMFA(PretrainedEncoder):
    """Pool the concatenation of all layers, each through a small adapter.

    As in the w2v-BERT 2.0 recipe of its authors and in WeSpeaker's: an adapter
    is two linear layers with a layer norm and a ReLU between them; attentive
    statistics (Okabe et al., 2018, arXiv 1803.10963) and a linear layer follow.
    The pooling is SpeechBrain's, with its global context.

    Arguments
    ---------
    front_end : speechbrain_ssl.encoders.pretrained.PretrainedFrontEnd
        The front end.
    adapter : int
        Channels of an adapter, and of the attention.
    lin_neurons : int
        Size of the embedding.
    """

    def __init__(self, front_end, adapter=128, lin_neurons=256):
        super().__init__(front_end)
        self._settings = {"adapter": adapter, "lin_neurons": lin_neurons}
        self.adapters = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.Linear(front_end.size, adapter),
                torch.nn.LayerNorm(adapter),
                torch.nn.ReLU(),
                torch.nn.Linear(adapter, adapter),
            )
            for _ in range(front_end.states)
        )
        channels = adapter * front_end.states
        self.pooling = AttentiveStatisticsPooling(channels, adapter)
        self.fc = torch.nn.Linear(2 * channels, lin_neurons)

    def pool(self, states):
        """Map hidden states to embeddings, ``[batch, embedding size]``."""
        adapted = [
            adapter(state)
            for adapter, state in zip(self.adapters, states, strict=True)
        ]
        frames = torch.cat(adapted, dim=2).transpose(1, 2)
        return self.fc(self.pooling(frames.float()).squeeze(2))


class WeightedECAPA(PretrainedEncoder):
    """Pool the weighted sum of all layers with an ECAPA-TDNN.

    Arguments
    ---------
    front_end : speechbrain_ssl.encoders.pretrained.PretrainedFrontEnd
        The front end.
    lin_neurons : int
        Size of the embedding.
    channels : list of int
        Channels of the ECAPA-TDNN.
    """

    needs_two_rows = True

    def __init__(
        self,
        front_end,
        lin_neurons=192,
        channels=(512, 512, 512, 512, 1536),
    ):
        super().__init__(front_end)
        self._settings = {
            "lin_neurons": lin_neurons,
            "channels": list(channels),
        }
        self.layers = torch.nn.Parameter(torch.zeros(front_end.states))
        self.ecapa = FastECAPA(
            front_end.size, lin_neurons=lin_neurons, channels=list(channels)
        )

    def last_affine(self):
        """Return the layer that computes the embedding."""
        return self.ecapa.fc

    def pool(self, states):
        """Map hidden states to embeddings, ``[batch, embedding size]``."""
        return self.ecapa(weighted_sum(states, self.layers)).squeeze(1)
