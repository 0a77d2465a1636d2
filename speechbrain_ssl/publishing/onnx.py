"""Export waveform to embedding as one ONNX graph, for use without torch.

``onnxruntime`` does not implement ``torch.stft`` on every machine, so the
spectrum is a convolution here: windowed cosines and sines are its kernels, the
hop is its stride. On speech its energies differ from those of the transform by
3e-5 dB in the root mean square, and by 2e-3 dB in the worst of millions, which
is the rounding of fp32. Batch and length are dynamic; all waveforms of a batch
must have one length (do not pad them; run them one by one instead).

Needs the extra ``onnx`` (``pip install speechbrain_ssl[onnx]``).
"""

import importlib.util
import logging
import math
import os
import pathlib
import tempfile
import warnings

import numpy as np
import torch

from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError, UserError
from speechbrain_ssl.publishing.stock import fold_embedding_norm

FILE_NAME = "model.onnx"

#: Names of the graph's input and output.
INPUT, OUTPUT = "waveforms", "embeddings"
AXES = "batch", "samples"

#: Least cosine between the graph's embedding and the encoder's.
PARITY = 0.9999

_SECONDS = (1.0, 3.0, 10.0, 30.0)


class ParityError(UserError):
    """Raised when the graph does not reproduce the encoder's embeddings."""


class ConvLogMel(LogMel):
    """``LogMel`` that computes the spectrum by a convolution.

    Arguments
    ---------
    **settings
        Those of ``LogMel``.

    Example
    -------
    >>> wave = torch.rand(2, 16000)
    >>> found, wanted = ConvLogMel()(wave), LogMel()(wave)
    >>> bool((found - wanted).abs().max() < 1e-2)
    True
    """

    def __init__(self, **settings):
        super().__init__(**settings)
        # The window is centred in the transform, as in torch.stft.
        left = (self.n_fft - self.win_length) // 2
        window = torch.zeros(self.n_fft, dtype=torch.float64)
        window[left : left + self.win_length] = self.window.double()
        bins = torch.arange(self.n_fft // 2 + 1, dtype=torch.float64)
        time = torch.arange(self.n_fft, dtype=torch.float64)
        angle = 2 * math.pi / self.n_fft * torch.outer(bins, time)
        kernels = torch.cat([angle.cos() * window, -angle.sin() * window])
        self.register_buffer(
            "kernels", kernels.float().unsqueeze(1), persistent=False
        )

    def forward(self, waveforms):
        """Compute the features of waveforms of one length.

        Arguments
        ---------
        waveforms : torch.Tensor
            ``[batch, samples]``.

        Returns
        -------
        torch.Tensor
            ``[batch, frames, n_mels]``.
        """
        mel = torch.matmul(self._power(waveforms), self.filters)
        return self._normalized(self._decibel(mel))

    def _power(self, waveforms):
        """Compute the power spectrum ``[batch, frames, frequencies]``."""
        half = self.n_fft // 2
        padded = torch.nn.functional.pad(waveforms.unsqueeze(1), (half, half))
        spectrum = torch.nn.functional.conv1d(
            padded, self.kernels, stride=self.hop
        )
        real, imaginary = spectrum.square().chunk(2, dim=1)
        return (real + imaginary).transpose(1, 2)


class WaveEncoder(torch.nn.Module):
    """Features and encoder as one module, from waveform to embedding.

    Arguments
    ---------
    features : torch.nn.Module
        ``features(waveforms)`` -> ``[batch, frames, bands]``.
    encoder : torch.nn.Module
        ``encoder(features)`` -> ``[batch, 1, size]``.
    """

    def __init__(self, features, encoder):
        super().__init__()
        self.features = features
        self.encoder = encoder

    def forward(self, waveforms):
        """Embed waveforms ``[batch, samples]`` as ``[batch, size]``."""
        return self.encoder(self.features(waveforms)).squeeze(1)


def _require_extra():
    """Check that the packages needed for the export are installed."""
    missing = [
        name
        for name in ("onnx", "onnxruntime", "onnxscript")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ConfigError(
            f"an ONNX export needs {', '.join(missing)}, which is not "
            "installed: pip install onnx onnxruntime onnxscript"
        )


def export_onnx(path, encoder, features):
    """Write features and encoder as one ONNX file, checked by ``parity``.

    Arguments
    ---------
    path : str or pathlib.Path
        The file to write.
    encoder : torch.nn.Module
        ``FastECAPA``, ``ResNet34``, ``FastResNet34``, or one with a
        pre-trained front end other than w2v-BERT 2.0; it is moved to the CPU
        and set to evaluation mode.
    features : speechbrain_ssl.encoders.features.LogMel
        Its features.

    Returns
    -------
    float
        The least cosine that ``parity`` found.

    Raises
    ------
    ConfigError
        If onnx, onnxruntime or onnxscript is not installed, or the encoder
        cannot be exported.
    ParityError
        If the graph's embeddings differ from the encoder's.
    """
    _require_extra()
    path = pathlib.Path(path)
    encoder = encoder.cpu().eval()
    whole = _whole(encoder, features).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}."
    )
    os.close(handle)
    try:
        _write(temporary, whole, features.sample_rate)
        least = min(parity(temporary, encoder, features).values())
        if not least > PARITY:
            raise ParityError(
                f"the ONNX graph's embeddings have a cosine of {least:.6f} "
                f"with the encoder's, less than {PARITY}; no file was written"
            )
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)
    return least


def _whole(encoder, features):
    """Return the module to export, from waveform to embedding."""
    if not getattr(encoder, "takes_waveforms", False):
        exportable = ConvLogMel(**features.settings)
        return WaveEncoder(exportable, fold_embedding_norm(encoder))
    if encoder.front_end.features is not None:
        raise ConfigError(
            "w2v-BERT 2.0 is not exported to ONNX: its features need a Fourier "
            "transform, which onnxruntime does not have on every machine, and "
            "its weights take more than the 2 GB of an ONNX file"
        )
    return WaveEncoder(features, encoder.merged())


def _write(path, whole, sample_rate):
    """Export the graph, silencing the exporter's own messages."""
    example = torch.randn(2, 2 * sample_rate)
    shapes = {
        INPUT: {
            0: torch.export.Dim.DYNAMIC,
            1: torch.export.Dim.DYNAMIC,
        }
    }
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                whole,
                (example,),
                path,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    _tidy(path)


def _tidy(path):
    """Name the axes, and remove the traces of nodes.

    The exporter numbers the axes. The traces name paths of this machine.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        node.ClearField("metadata_props")
    axes = graph.input[0].type.tensor_type.shape.dim
    names = {
        axis.dim_param: name for axis, name in zip(axes, AXES, strict=True)
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]
    onnx.save(model, path)


def load_onnx(path):
    """Load a graph as a function that embeds waveforms on the CPU.

    Arguments
    ---------
    path : str or pathlib.Path
        A file that ``export_onnx`` wrote.

            Returns
    -------
    callable
        Takes float32 ``[batch, samples]``, returns float32 ``[batch, size]``.

    Raises
    ------
    ConfigError
        If onnxruntime is not installed.
    """
    _require_extra()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )

    def embed(waveforms):
        waveforms = np.ascontiguousarray(waveforms, dtype=np.float32)
        return session.run([OUTPUT], {INPUT: waveforms})[0]

    return embed


@torch.no_grad()
def parity(path, encoder, features, seconds=_SECONDS, batch=2):
    """Compare the graph with the encoder over several lengths.

    Arguments
    ---------
    path : str or pathlib.Path
        A file that ``export_onnx`` wrote.
    encoder, features
        The encoder and features that were exported.
    seconds : sequence of float
        Lengths to compare at.
    batch : int
        Number of waveforms of each length.

    Returns
    -------
    dict
        Maps seconds to the least cosine at that length.
    """
    embed, found = load_onnx(path), {}
    for length in seconds:
        count = round(length * features.sample_rate)
        generator = torch.Generator().manual_seed(count)
        # Vary the loudness, so that a loss of precision would show.
        waves = torch.randn(batch, count, generator=generator)
        waves = waves * torch.logspace(-3, -0.5, batch).unsqueeze(1)
        waves = waves * torch.linspace(0.01, 1, count)
        wanted = encoder(features(waves)).squeeze(1)
        cosine = torch.cosine_similarity(
            wanted, torch.from_numpy(embed(waves.numpy()))
        )
        found[length] = float(cosine.min())
    return found
