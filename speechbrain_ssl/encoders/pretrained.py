"""Pre-trained WavLM, HuBERT, wav2vec 2.0 and w2v-BERT 2.0 as front ends.

``PretrainedFrontEnd`` maps waveforms to the hidden states of all layers, which
a back end (``speechbrain_ssl.encoders.mhfa``) pools into an embedding. The
models are those of transformers, with the values and the names of weights that
SpeechBrain's wrappers (``speechbrain.integrations.huggingface``) give them. The
wrappers themselves are not used, for what a speaker encoder needs is not in
them:

* They warn about weights that a checkpoint lacks, and train on from random
  ones; here that is an error.
* They drop whole layers in training (``layerdrop``), so that a sum over layers
  misses one now and then. Here none is dropped, and no span is masked.
* ``freeze=True`` is undone for dropout by ``.train()``.
* ``W2VBert`` computes its features with numpy on the CPU in every forward pass.
* Padding changes the frames of a model with group norm, and loudness is
  normalised over it. Here waveforms of a batch have one length.

Needs the extra ``hf`` (``pip install speechbrain-ssl[hf]``).
"""

import copy
import importlib

import torch

from speechbrain_ssl.checks import check_choice, check_number
from speechbrain_ssl.encoders.kaldi_features import HOP, WINDOW, KaldiFeatures
from speechbrain_ssl.encoders.lora import (
    add_adapters,
    check_adapters,
    merge_adapters,
)
from speechbrain_ssl.encoders.pretrained_files import (
    find_pretrained,
    load_pretrained,
    read_normalization,
)
from speechbrain_ssl.errors import ConfigError

#: The ``model_type`` of transformers' configurations that are supported.
KINDS = ("wavlm", "hubert", "wav2vec2", "wav2vec2-bert")

#: Which weights are trained.
TRAINED = ("nothing", "lora", "transformer", "everything")

# Settings of transformers that say nothing about weights or values.
_NOT_DESCRIBED = {"architectures", "dtype", "transformers_version"}


def require_transformers():
    """Import transformers.

    Returns
    -------
    module

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            "a pre-trained encoder needs the package transformers: "
            "pip install speechbrain-ssl[hf]"
        ) from error


class PretrainedFrontEnd(torch.nn.Module):
    """Compute all hidden states of a pre-trained speech model.

    ``load`` makes one with its pre-trained weights, ``described`` one with
    random weights.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        The model.
    normalize_wave : bool
        Whether each waveform is normalised to zero mean and unit variance
        before (the large WavLM and wav2vec 2.0; not the base ones).
    train : str
        ``nothing``: frozen, without dropout; ``lora``: only the adapters;
        ``transformer``: the transformer layers, not the convolutions and the
        projection before them, as in Miara et al. (2024); ``everything``.
    lr_ratio : float
        Learning rate of the last layer as a ratio of the run's (Miara et al.:
        2e-5 / 5e-3).
    layer_decay : float
        Each layer's learning rate as a ratio of that of the layer above it.
    penalty : float
        Weight of the distance to the pre-trained weights in the loss; see
        ``with_penalty``.
    lora : dict, optional
        ``rank``, ``alpha`` and ``layers`` of ``add_adapters``; used with
        ``train: lora`` only.
    gradient_checkpointing : bool
        Whether activations are computed again in the backward pass: less
        memory for a third more time.

    Raises
    ------
    ConfigError
        If a value is not allowed, or an adapter would not be trained.
    """

    def __init__(
        self,
        model,
        normalize_wave=False,
        train="transformer",
        lr_ratio=1.0,
        layer_decay=1.0,
        penalty=0.0,
        lora=None,
        gradient_checkpointing=False,
    ):
        super().__init__()
        owner = "the pre-trained front end"
        check_choice(owner, "train", train, TRAINED)
        check_number(owner, "lr_ratio", lr_ratio, above=0)
        check_number(owner, "layer_decay", layer_decay, above=0, most=1)
        check_number(owner, "penalty", penalty, least=0)
        if train == "lora" and not lora:
            raise ConfigError(
                f"{owner} has `train: lora` without `lora`, the rank, alpha "
                "and layers of its adapters"
            )
        self.model, self.normalize_wave = model, normalize_wave
        self.trains, self.penalty = train, penalty
        self.lr_ratio, self.layer_decay = lr_ratio, layer_decay
        # Both are random choices in training that the back end must not see.
        model.config.layerdrop = 0.0
        model.config.apply_spec_augment = False
        self.features = None
        if self.kind == "wav2vec2-bert":
            self.features = KaldiFeatures()
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if train == "lora":
            add_adapters(model, **lora)
            self._register_load_state_dict_pre_hook(self._adapt_state)
            check_adapters(model, self._probe)
        elif train != "everything":
            model.requires_grad_(False)
        if train == "transformer":
            model.encoder.layers.requires_grad_(True)
        self._keep_pretrained()

    @classmethod
    def load(cls, source, **options):
        """Load a pre-trained model.

        Arguments
        ---------
        source : str
            A folder with ``config.json`` and weights as transformers saves
            them, or ``hf:owner/model`` for one on the hub.
        **options
            Those of the constructor after ``normalize_wave``.

        Returns
        -------
        PretrainedFrontEnd

        Raises
        ------
        ConfigError
            If the model is not there, incomplete, or of another architecture.
        """
        transformers = require_transformers()
        folder = find_pretrained(source)
        model = load_pretrained(transformers, folder, KINDS)
        return cls(model, read_normalization(folder), **options)

    @classmethod
    def described(cls, architecture, normalize_wave=False, **options):
        """Make a front end with random weights.

        Arguments
        ---------
        architecture : dict
            ``model_type``, one of ``KINDS``, and settings of transformers'
            configuration of that type which differ from its defaults.
        normalize_wave, **options
            Those of the constructor.

        Returns
        -------
        PretrainedFrontEnd

        Raises
        ------
        ConfigError
            If the architecture is not known.
        """
        transformers = require_transformers()
        settings = dict(architecture)
        kind = settings.pop("model_type", None)
        check_choice("the architecture", "model_type", kind, KINDS)
        known = transformers.AutoConfig.for_model(kind).to_dict()
        for name in settings:
            if name not in known:
                raise ConfigError(
                    f"the architecture {kind} has no setting {name}"
                )
        config = transformers.AutoConfig.for_model(kind, **settings)
        model = transformers.AutoModel.from_config(config)
        return cls(model, normalize_wave, **options)

    @property
    def description(self):
        """The arguments of ``described`` that make the same network."""
        config = self.model.config
        default = type(config)().to_dict()
        changed = {
            name: value
            for name, value in config.to_dict().items()
            if name not in _NOT_DESCRIBED
            and not name.startswith("_")
            and value != default.get(name)
        }
        return {
            "architecture": {**changed, "model_type": self.kind},
            "normalize_wave": self.normalize_wave,
        }

    @property
    def kind(self):
        """The ``model_type``, one of ``KINDS``."""
        return self.model.config.model_type

    @property
    def size(self):
        """Channels of a hidden state."""
        return self.model.config.hidden_size

    @property
    def states(self):
        """Number of hidden states: one of each layer, and their input."""
        return self.model.config.num_hidden_layers + 1

    @property
    def least_samples(self):
        """Number of samples of the shortest waveform that has a frame."""
        if self.features is not None:
            return WINDOW + HOP
        config, samples = self.model.config, 1
        layers = zip(config.conv_kernel, config.conv_stride, strict=True)
        for kernel, stride in reversed(list(layers)):
            samples = (samples - 1) * stride + kernel
        return samples

    def forward(self, waveforms):
        """Compute the hidden states of waveforms of one length.

        Arguments
        ---------
        waveforms : torch.Tensor
            ``[batch, samples]`` at 16 kHz, without padding.

        Returns
        -------
        tuple of torch.Tensor
            ``states`` tensors ``[batch, frames, size]``; a frame is 20 ms.

        Raises
        ------
        ConfigError
            If the waveforms are shorter than a frame.
        """
        if waveforms.shape[1] < self.least_samples:
            raise ConfigError(
                f"a waveform of {waveforms.shape[1]} samples is too short for "
                f"{type(self.model).__name__}, which needs "
                f"{self.least_samples}; make the crops longer"
            )
        if self.features is not None:
            inputs = {"input_features": self.features(waveforms)}
        else:
            if self.normalize_wave:
                waveforms = torch.nn.functional.layer_norm(
                    waveforms, waveforms.shape[1:]
                )
            inputs = {"input_values": waveforms}
        return self.model(**inputs, output_hidden_states=True).hidden_states

    def train(self, mode=True):
        """Set training mode; a frozen model stays in evaluation mode."""
        super().train(mode)
        if self.trains == "nothing":
            self.model.eval()
        return self

    def lr_ratios(self):
        """Return the learning rates of the weights, as ratios of the run's.

        Returns
        -------
        list of tuple
            A ratio, and the trained parameters it is for. What is below the
            layers counts as one more layer.
        """
        layers, ratio, found = self.model.encoder.layers, self.lr_ratio, []
        for layer in reversed(layers):
            found.append((ratio, list(layer.parameters())))
            ratio *= self.layer_decay
        seen = {id(p) for _, group in found for p in group}
        rest = [p for p in self.model.parameters() if id(p) not in seen]
        return [
            (ratio, [p for p in group if p.requires_grad])
            for ratio, group in [*found, (ratio, rest)]
        ]

    def distance(self):
        """Compute the distance of the trained weights to the pre-trained ones.

        Returns
        -------
        torch.Tensor
            Sum over the weight tensors of the L2 norms of their differences.
        """
        total = 0.0
        for name, now in self.model.named_parameters():
            if name in self.pretrained:
                before = self.pretrained[name].to(now.device)
                self.pretrained[name] = before
                total = total + torch.linalg.vector_norm(now - before)
        return total

    def merged(self):
        """Return a copy without adapters: their products are in the weights."""
        plain = copy.deepcopy(self)
        merge_adapters(plain.model)
        return plain

    def _keep_pretrained(self):
        """Copy the weights that the penalty compares with."""
        self.pretrained = {}
        if self.penalty and self.trains in ("nothing", "lora"):
            raise ConfigError(
                "frozen weights cannot leave the pre-trained ones: set "
                f"`penalty` to 0 with `train: {self.trains}`"
            )
        if self.penalty:
            self.pretrained = {
                name: parameter.detach().clone()
                for name, parameter in self.model.named_parameters()
                if parameter.requires_grad
            }

    def _probe(self):
        """Return the last hidden state of a tenth of a second of noise."""
        noise = torch.rand(1, 1600, generator=torch.Generator().manual_seed(0))
        training = self.model.training
        self.model.eval()
        found = self(noise - 0.5)[-1]
        self.model.train(training)
        return found

    def _adapt_state(self, state, prefix, *_):
        """Let merged weights be loaded beneath fresh adapters."""
        original = ".parametrizations.weight.original"
        for name, value in self.state_dict().items():
            plain = prefix + name.removesuffix(original) + ".weight"
            if name.endswith(original) and plain in state:
                state[prefix + name] = state.pop(plain)
            elif name.endswith((".down", ".up")):
                state.setdefault(prefix + name, value)


def with_penalty(loss, encoder):
    """Add the penalty for leaving the pre-trained weights to a loss.

    Miara, Lepage, Dehak, 2024 (arXiv 2406.02285), as their code has it::

        loss / |loss| + penalty * R / |R|,   R = sum_i ||W_i - W_i^0||

    where the denominators are constants: both terms have their gradients scaled
    by their own size.

    Arguments
    ---------
    loss : torch.Tensor
        A scalar.
    encoder : torch.nn.Module
        One without a pre-trained front end, or without a penalty, leaves the
        loss as it is.

    Returns
    -------
    torch.Tensor
    """
    front_end = getattr(encoder, "front_end", None)
    if not getattr(front_end, "penalty", 0):
        return loss
    distance = front_end.distance()
    return loss / loss.detach().abs().clamp(
        min=1e-5
    ) + front_end.penalty * distance / (distance.detach() + 1e-5)
