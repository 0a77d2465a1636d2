"""Small random models of transformers, written to disk as published ones are."""

import json

import pytest
import torch

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (extra hf)"
)

_TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
_CONVOLUTIONS = {
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
# As the large models have them, and w2v-BERT 2.0 as published.
_LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}

#: Name -> class, settings, and whether waveforms are normalised.
MODELS = {
    "wavlm": (transformers.WavLMModel, _CONVOLUTIONS, False),
    "wavlm-large": (transformers.WavLMModel, _CONVOLUTIONS | _LARGE, True),
    "hubert": (transformers.HubertModel, _CONVOLUTIONS, True),
    "wav2vec2": (transformers.Wav2Vec2Model, _CONVOLUTIONS, False),
    "w2v-bert": (transformers.Wav2Vec2BertModel, {}, None),
}


def write_pretrained(name, folder, pickled=False):
    """Write a random model of ``MODELS`` to a folder, and return the folder."""
    kind, settings, normalize = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = kind(kind.config_class(**_TRANSFORMER, **settings))
        # Random, so that layers differ from the start.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    if name == "w2v-bert":
        transformers.SeamlessM4TFeatureExtractor().save_pretrained(folder)
    else:
        about = {
            "do_normalize": normalize,
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "sampling_rate": 16000,
            "return_attention_mask": True,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(about))
    if pickled:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder
