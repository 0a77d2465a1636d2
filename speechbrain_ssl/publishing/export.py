"""A folder that stock SpeechBrain loads.

``EncoderClassifier.from_hparams(folder)`` and ``SpeakerRecognition`` need a
``hyperparams.yaml`` with ``modules`` and a ``pretrainer``, and a checkpoint.
The YAML names stock classes only: nothing of ours has to be installed where the
model is used.
"""

import json
import pathlib

import torch

from speechbrain_ssl.files import atomic_write

_YAML = """\
# Speaker embeddings, trained without labels by speechbrain-ssl.
# Load it with stock SpeechBrain:
#   from speechbrain.inference.speaker import EncoderClassifier
#   model = EncoderClassifier.from_hparams("this/folder")

sample_rate: {sample_rate}

compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: {n_mels}
    sample_rate: {sample_rate}

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
{arguments}

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>

# The file embedding_model.ckpt beside this one.
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""


def export_encoder(folder, encoder, features):
    """Writes encoder and features as a folder of stock SpeechBrain.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to write ``hyperparams.yaml`` and ``embedding_model.ckpt``.
    encoder : speechbrain_ssl.encoders.ecapa.FastECAPA
        The encoder.
    features : speechbrain_ssl.encoders.features.LogMel
        Its input features.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    folder = pathlib.Path(folder)
    arguments = "\n".join(
        # JSON's numbers and lists are YAML's.
        f"    {name}: {json.dumps(value)}"
        for name, value in encoder.arguments.items()
    )
    state = {k: v.detach().cpu() for k, v in encoder.state_dict().items()}
    with atomic_write(folder / "embedding_model.ckpt", "wb") as stream:
        torch.save(state, stream)
    with atomic_write(folder / "hyperparams.yaml") as stream:
        stream.write(
            _YAML.format(
                sample_rate=features.sample_rate,
                n_mels=features.n_mels,
                arguments=arguments,
            )
        )
    return folder


def load_encoder(folder, device="cpu"):
    """Loads such a folder into our own, faster classes.

    Arguments
    ---------
    folder : str
        A folder written by ``export_encoder``, or the name of a published
        model of the same make-up.
    device : str
        Where to put the encoder.

    Returns
    -------
    tuple
        ``FastECAPA`` in evaluation mode and ``LogMel``.

    Raises
    ------
    ConfigError
        If the folder is none, or holds another kind of model.
    """
    from speechbrain.inference.speaker import EncoderClassifier

    from speechbrain_ssl.encoders.ecapa import FastECAPA
    from speechbrain_ssl.encoders.features import LogMel
    from speechbrain_ssl.errors import ConfigError

    path = pathlib.Path(folder)
    if path.is_dir() and (path / "model" / "hyperparams.yaml").is_file():
        # The output folder of a training run was given.
        path = path / "model"
    if path.exists() or str(folder).startswith((".", "/")):
        for name in ("hyperparams.yaml", "embedding_model.ckpt"):
            if not (path / name).is_file():
                raise ConfigError(
                    f"{folder} is no model: {name} is missing; give the output "
                    "folder of a finished training run, or its `model` folder"
                )
    stock = EncoderClassifier.from_hparams(
        source=str(path), run_opts={"device": str(device)}
    ).eval()
    fbank = stock.mods.compute_features.compute_fbanks
    features = LogMel(n_mels=fbank.n_mels, sample_rate=fbank.sample_rate)
    encoder = FastECAPA.from_stock(stock.mods.embedding_model)
    return encoder, features.to(device)
