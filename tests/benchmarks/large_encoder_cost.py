"""Count parameters, operations and memory of pre-trained encoders in training.

    python tests/benchmarks/large_encoder_cost.py

The encoders have their published sizes, on torch's meta device: nothing is
computed. torch's counter counts the operations of a crop in a forward and a
backward pass; recomputed activations add a forward pass. The activations are the
tensors that autograd keeps, in bf16; with recomputation, the output of each
layer and what the largest part of a single layer keeps. What a GPU's kernels
allocate beside that is not counted, nor is the back end, which is small.
"""

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from speechbrain_ssl.encoders.pretrained import PretrainedFrontEnd

UTTERANCES = 1_092_009  # of VoxCeleb2's training part

_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}

#: Name -> what the published configuration has set.
ENCODERS = {
    "WavLM-Base+": {"model_type": "wavlm"},
    "WavLM-Large": {
        "model_type": "wavlm",
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        **_LARGE,
    },
    "w2v-BERT 2.0": {"model_type": "wav2vec2-bert", **_LARGE},
}


def kept_bytes(run):
    """Return what ``run`` returns, and the bytes that autograd keeps of it."""
    kept = {}

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            # All storages of the meta device have the same address.
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        found = run()
    return found, sum(size for _, size in kept.values())


def cost(architecture, seconds):
    """Return parameters, operations and bytes of a crop."""
    with torch.device("meta"):
        front_end = PretrainedFrontEnd.described(
            architecture, train="everything"
        ).bfloat16()
        model, samples = front_end.model, round(16000 * seconds)
        # One row of features or of audio; the features themselves are cheap.
        inputs = {"input_values": torch.randn(1, samples, dtype=torch.bfloat16)}
        if front_end.features is not None:
            frames = (samples - 240) // 320
            inputs = {
                "input_features": torch.randn(
                    1, frames, 160, dtype=torch.bfloat16
                )
            }

    def run():
        states = model(**inputs, output_hidden_states=True).hidden_states
        return sum(state.sum() for state in states), states

    with FlopCounterMode(display=False) as counter:
        (loss, states), kept = kept_bytes(run)
        forward = counter.get_total_flops()
        loss.backward()
        both = counter.get_total_flops()
    outputs = sum(s.untyped_storage().nbytes() for s in states)
    layers = len(model.encoder.layers)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "layers": sum(p.numel() for p in model.encoder.layers.parameters()),
        "forward": forward,
        "both": both,
        "kept": kept,
        "recomputed": outputs + kept / layers,
    }


def main():
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--tflops", type=float, default=30.0)
    options = parser.parse_args()
    print("| encoder | parameters, M | GFLOP | kept, MB | recomputed, MB |")
    for name, architecture in ENCODERS.items():
        found = cost(architecture, options.seconds)
        again = found["both"] + found["forward"]
        print(
            f"| {name} | {found['parameters'] / 1e6:.0f} (layers "
            f"{found['layers'] / 1e6:.0f}) | {found['both'] / 1e9:.0f}, "
            f"{again / 1e9:.0f} | {found['kept'] / 1e6:.0f} | "
            f"{found['recomputed'] / 1e6:.0f} |"
        )
        for batch in (16, 60, 120):
            # Weights, gradients and Adam's two moments, in fp32.
            fixed = 16 * found["parameters"]
            print(
                f"  batch {batch}: {(fixed + batch * found['kept']) / 1e9:.1f}"
                f" GB, recomputed "
                f"{(fixed + batch * found['recomputed']) / 1e9:.1f} GB; "
                f"{batch * found['both'] / options.tflops / 1e9:.0f} ms, "
                f"{batch * again / options.tflops / 1e9:.0f} ms a step"
            )
        hours = (
            UTTERANCES * work / options.tflops / 3.6e15
            for work in (found["both"], again)
        )
        print("  an epoch of VoxCeleb2: {:.1f}, {:.1f} hours".format(*hours))


if __name__ == "__main__":
    main()
