"""Count the floating-point operations of whole training runs on VoxCeleb2.

    cd recipes/VoxCeleb
    python ../../tests/benchmarks/training_cost.py SSL/hparams/dino_ecapa.yaml \\
        PseudoLabels/hparams/dlg_lc_ecapa_512.yaml

torch's counter counts the operations of an utterance in a training step, with
the encoder and the head of a configuration at their full size: forward and
backward pass of the crops that the student sees, forward pass of those that the
teacher sees, and the reference crop of SSPS. What is left out is small or not
arithmetic: augmentation, features, loss, optimiser, k-means, reading the audio.
The hours follow from a number of operations per second that a GPU is assumed to
reach (``--tflops``), the memory from the tensors that autograd keeps in bf16. It
takes seconds for each configuration on one CPU core.
"""

import argparse
import importlib.util
import pathlib
import tempfile

import torch
from torch.utils.flop_counter import FlopCounterMode

from speechbrain_ssl.config import load_config
from speechbrain_ssl.positives.ssps import SSPS

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "recipes" / "VoxCeleb"
UTTERANCES = 1_092_009 - 1_000  # VoxCeleb2 dev without the held-out ones
MEAN_SECONDS = 7.8  # of an utterance


def load(path):
    """Return the hyper-parameters of a configuration."""
    path = pathlib.Path(path).resolve()
    script = RECIPES / path.parent.parent.name / "train.py"
    spec = importlib.util.spec_from_file_location("train_script", script)
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--output_folder={folder}", "--data_folder=x"]
        flags += ["--initial_model=x", "--device=cpu"]
        return load_config([str(path), *flags], train.KEYS)[-1]


class Cost:
    """Count the operations and activations of an utterance.

    Attributes
    ----------
    operations : float
        Floating-point operations so far.
    activations : float
        Bytes that autograd keeps, so far.
    """

    def __init__(self, hparams):
        self.n_mels = hparams["features"].settings["n_mels"]
        self.operations = self.activations = 0

    def run(self, modules, crops, seconds, gradient):
        """Send crops of one length through modules, one after the other."""
        kept = {}

        def keep(tensor):
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                # The tensor is kept so that its memory is not used again.
                kept[storage.data_ptr()] = tensor, storage.nbytes()
            return tensor

        # Batch norm needs two utterances.
        x = torch.randn(2 * crops, round(100 * seconds) + 1, self.n_mels)
        with (
            FlopCounterMode(display=False) as counter,
            torch.autocast("cpu", torch.bfloat16),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
            torch.set_grad_enabled(gradient),
        ):
            x = modules[0](x).squeeze(1)
            for module in modules[1:]:
                x = module(x)
            if gradient:
                x.float().sum().backward()
        self.operations += counter.get_total_flops() / 2
        self.activations += sum(size for _, size in kept.values()) / 2


def ssl_cost(hparams):
    """Return operations of a run, and activations of an utterance."""
    objective, plan = hparams["objective"], hparams["crops"]
    modules = [hparams["encoder"], objective.head]
    if hasattr(objective.head, "logits"):
        modules.append(objective.head.logits)
    groups = [(count, n / plan.sample_rate) for count, n in plan.groups]
    student = groups if objective.student_sees_global_crops else groups[1:]
    cost = Cost(hparams)
    for count, seconds in student:
        cost.run(modules, count, seconds, True)
    if objective.momentum:
        cost.run(modules, *groups[0], False)
    epochs = hparams["number_of_epochs"]
    total = epochs * UTTERANCES * cost.operations
    positives = hparams["positives"]
    if positives is not None:
        other = Cost(hparams)
        start = positives.start_epoch
        if isinstance(positives, SSPS):
            # One epoch more fills the memory.
            passes = epochs - start + 2
            seconds = positives.reference_seconds
        else:
            passes = (epochs - start) // positives.every + 1
            seconds = MEAN_SECONDS
        other.run(modules[:1], 1, seconds, False)
        total += passes * UTTERANCES * other.operations
    return total, cost


def rounds_cost(hparams):
    """Return operations of all rounds, and activations of an utterance."""
    encoder = hparams["encoder"]
    size = encoder.arguments["lin_neurons"]
    classes = torch.nn.Linear(size, 7500, bias=False)
    whole, clean, crop = Cost(hparams), Cost(hparams), Cost(hparams)
    seconds = hparams["crops"].global_seconds
    whole.run([encoder], 1, MEAN_SECONDS, False)
    clean.run([encoder], 1, seconds, False)
    crop.run([encoder, classes], 1, seconds, True)
    epochs = hparams["number_of_epochs"]
    # At most: every utterance is encoded a second time.
    corrected = max(0, epochs + 1 - hparams["label_correction_epoch"])
    total = hparams["rounds"] * (
        whole.operations
        + epochs * crop.operations
        + corrected * clean.operations
    )
    last = hparams["final_stage"] or []
    for changes in last if isinstance(last, list) else [last]:
        long = Cost(hparams)
        length = changes.get("global_seconds", seconds)
        long.run([encoder, classes], 1, length, True)
        total += changes.get("number_of_epochs", epochs) * long.operations
    return total * UTTERANCES, crop


def main():
    """Print a table with a row for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("configurations", nargs="+")
    parser.add_argument("--tflops", type=float, default=30.0)
    given = parser.parse_args()
    print(
        "| configuration | GFLOP per utterance and epoch | EFLOP in all | "
        f"GPU hours at {given.tflops:g} TFLOP/s | activations of a batch, GB |"
    )
    print("|---|---|---|---|---|")
    for path in given.configurations:
        hparams = load(path)
        count = ssl_cost if "objective" in hparams else rounds_cost
        total, cost = count(hparams)
        hours = total / (given.tflops * 1e12) / 3600
        memory = cost.activations * hparams["batch_size"] / 1e9
        print(
            f"| `{pathlib.Path(path).name}` | {cost.operations / 1e9:.1f} | "
            f"{total / 1e18:.1f} | {hours:.0f} | {memory:.0f} |"
        )


if __name__ == "__main__":
    main()
