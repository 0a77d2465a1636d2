"""The commands of ``speechbrain-ssl`` and their options, without torch."""

import argparse
import os
import sys

from speechbrain_ssl import __version__

_MODEL = (
    "a model folder, the output folder of a training run, or hf:owner/model "
    "for a model on the hub"
)


def make_parser():
    """Make the parser of the command line, without importing torch.

    Returns
    -------
    argparse.ArgumentParser

    Example
    -------
    >>> options = make_parser().parse_args(
    ...     ["verify", "a.wav", "b.wav", "--model=me/model"]
    ... )
    >>> options.command, options.first, options.p_target
    ('verify', 'a.wav', 0.5)
    """
    parser = argparse.ArgumentParser(
        prog="speechbrain-ssl",
        description="Speaker embeddings and what they are for.",
        epilog="Exit codes: 0 done, 1 an error you can mend or some files "
        "could not be used, 2 wrong usage.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"speechbrain-ssl {__version__}",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command"
    )
    common, many = _common(), _many()
    _add_recipe(commands, "train", "train an encoder on a folder of audio")
    _add_recipe(commands, "rounds", "improve an encoder with pseudo-labels")
    _add_script(
        commands,
        "evaluate",
        "equal error rate of a model on a list of trials",
        "trials=LIST trials_folder=FOLDER [key=value ...]",
    )
    _add_script(
        commands,
        "publish",
        "package a model for stock SpeechBrain and the hub",
        "output_folder=FOLDER data=SENTENCE [key=value ...]",
    )
    _add_script(
        commands,
        "compare",
        "compare models on the trials that all have scored",
        "model ... [--key=value ...]",
        nargs="+",
        help="output folder of evaluate, or of a training run with trials; "
        "name=FOLDER names it, FOLDER:SCORING takes another scoring",
    )
    _add_export_onnx(commands)
    _add_config(commands)
    _add_verify(commands, [common])
    _add_embed(commands, [common, many])
    _add_score(commands, [common, many])
    _add_cluster(commands, [common, many])
    _add_made_threshold(commands, [common, many])
    _add_search(commands, [common])
    _add_enrol(commands, [common])
    _add_identify(commands, [common])
    return parser


class _HelpWithKeys(argparse.Action):
    """Print the help, and the keys of the configuration that was named."""

    def __call__(self, parser, namespace, values, option_string=None):
        from speechbrain_ssl.cli.keys import explained_keys
        from speechbrain_ssl.cli.recipe import default_of, named

        command = parser.get_default("recipe")
        name = namespace.config or default_of(command)
        parser.print_help()
        lines = explained_keys(named(name, [command]))
        title = f"\nkeys of {name} (of another: --config=NAME --help):"
        try:
            print("\n  ".join([title, *lines]), flush=True)
        except BrokenPipeError:
            drop_output()
        parser.exit()


def _add_recipe(commands, name, text):
    """Add a command that runs a script of recipes/UnlabeledFolder."""
    parser = commands.add_parser(
        name,
        help=text,
        add_help=False,
        usage=f"speechbrain-ssl {name} folder [--config=NAME] [key=value ...]",
        description=f"{text[0].upper()}{text[1:]}, without labels.",
        epilog="Any key of the configuration can be set by key=value or "
        "--key=value. The same command continues a run that was interrupted.",
        # What is not known here is for the script.
        allow_abbrev=False,
    )
    parser.add_argument("folder", help="folder of audio files, or a list")
    parser.add_argument(
        "--config",
        metavar="NAME",
        help="configuration; `speechbrain-ssl config` lists them",
    )
    parser.add_argument(
        "-h", "--help", action=_HelpWithKeys, nargs=0, help="print this text"
    )
    parser.set_defaults(module="recipe", recipe=name, json=False, quiet=False)


def _add_script(commands, name, text, keys, **model):
    """Add a command that runs a script of recipes/VoxCeleb/Verification.

    ``model`` changes how its first argument is parsed.
    """
    parser = commands.add_parser(
        name,
        help=text,
        usage=f"speechbrain-ssl {name} model {keys}",
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="recipes/VoxCeleb/Verification/README.md explains the keys.",
        allow_abbrev=False,
    )
    model = {"help": "output folder of a training run", **model}
    parser.add_argument("model", **model)
    parser.set_defaults(module="verification", json=False)


def _add_export_onnx(commands):
    """Add the command ``export-onnx``."""
    parser = commands.add_parser(
        "export-onnx",
        help="write a model as one ONNX file, from waveform to embedding",
    )
    parser.add_argument("model", help=_MODEL)
    parser.add_argument(
        "--output",
        required=True,
        help="the file to write; it takes waveforms [batch, samples] of 16 kHz "
        "and gives embeddings [batch, size]",
    )
    parser.set_defaults(module="export_onnx", json=False)


def _add_config(commands):
    """Add the command ``config``."""
    parser = commands.add_parser(
        "config", help="list the configurations for training, or print one"
    )
    parser.add_argument("name", nargs="?", help="the one to print")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object"
    )


def _add_verify(commands, parents):
    """Add the command ``verify``."""
    parser = commands.add_parser(
        "verify",
        parents=parents,
        help="did one speaker say both recordings?",
    )
    parser.add_argument("first", help="an audio file")
    parser.add_argument("second", help="another one")
    _add_threshold(parser)


def _add_embed(commands, parents):
    """Add the command ``embed``."""
    parser = commands.add_parser(
        "embed",
        parents=parents,
        help="embeddings of all audio files below a folder",
    )
    _add_source(parser)
    parser.add_argument(
        "--output",
        required=True,
        help="file to write: .npz, or .parquet where pyarrow is installed; its "
        "columns are file(s), seconds (length of the file) and embedding(s)",
    )
    parser.add_argument(
        "--windows",
        nargs="?",
        type=float,
        const=10.0,
        metavar="SECONDS",
        help="write an embedding for each window of a file and not for the "
        "whole file, with the columns start and end (seconds); a file is "
        "divided into windows of equal length, SECONDS or shorter (10 if "
        "--windows has no value)",
    )


def _add_score(commands, parents):
    """Add the command ``score``."""
    parser = commands.add_parser(
        "score", parents=parents, help="scores of a list of trials"
    )
    parser.add_argument(
        "trials",
        help="text file: [label] a.wav b.wav, or where names have spaces "
        '1,"a b.wav","c d.wav"',
    )
    parser.add_argument(
        "--audio_folder",
        default=".",
        help="folder that the names in the list are relative to (default: .)",
    )
    parser.add_argument(
        "--output", required=True, help="text file to write the scores to"
    )
    parser.add_argument(
        "--layout",
        help="of the list, where its first line does not tell (voxceleb, "
        "cnceleb, sitw, kaldi, pairs)",
    )
    parser.add_argument(
        "--enrolment",
        help="text file: a model and the recordings it is enrolled with",
    )
    parser.add_argument(
        "--llr",
        action="store_true",
        help="write calibrated log-likelihood ratios instead of cosines",
    )


def _add_cluster(commands, parents):
    """Add the command ``cluster``."""
    parser = commands.add_parser(
        "cluster",
        parents=parents,
        help="who speaks in which file of a folder",
    )
    _add_source(parser)
    parser.add_argument(
        "--speakers",
        type=int,
        help="how many speakers; guessed from the embeddings if not given",
    )
    parser.add_argument("--output", help="CSV file to write: file, speaker")
    parser.add_argument(
        "--page",
        help="HTML page to write, on which you hear the groups and name them",
    )


def _add_made_threshold(commands, parents):
    """Add the command ``threshold``."""
    parser = commands.add_parser(
        "threshold",
        parents=parents,
        help="a threshold for recordings like those of a folder, without labels",
    )
    _add_source(parser)
    parser.add_argument(
        "--names",
        type=int,
        help="how many speakers are enrolled, for the threshold of identify "
        "(default: 10, 100 and 1000)",
    )


def _add_search(commands, parents):
    """Add the command ``search``."""
    parser = commands.add_parser(
        "search",
        parents=parents,
        help="which of many embedded recordings sound like this one?",
    )
    parser.add_argument("file", help="an audio file")
    parser.add_argument(
        "stored", help="an .npz file that embed wrote, also with --windows"
    )
    parser.add_argument(
        "--count",
        type=int,
        default=10,
        help="how many to print, the most similar first (default: 10)",
    )


def _add_enrol(commands, parents):
    """Add the command ``enrol``."""
    parser = commands.add_parser(
        "enrol",
        parents=parents,
        help="add a speaker to a database",
    )
    parser.add_argument("name", help="name of the speaker")
    parser.add_argument(
        "files", nargs="+", metavar="file", help="recordings of the speaker"
    )
    _add_database(parser)
    parser.add_argument(
        "--replace",
        action="store_true",
        help="put these recordings in the place of those that the name has",
    )


def _add_identify(commands, parents):
    """Add the command ``identify``."""
    parser = commands.add_parser(
        "identify",
        parents=parents,
        help="who of a database speaks in a recording?",
    )
    parser.add_argument("file", help="an audio file")
    _add_database(parser)
    _add_threshold(parser, "that of the model, raised for the number of names,")


def _add_database(parser):
    parser.add_argument(
        "--database",
        required=True,
        help="folder with a file for each speaker, which enrol makes",
    )


def _add_source(parser):
    parser.add_argument(
        "source",
        metavar="folder",
        help="folder of audio files, one file, or a list of files: CSV with a "
        "column wav or path, plain paths, Kaldi's wav.scp or Lhotse's "
        "recordings.jsonl; m4a, webm and others (with PyAV) are decoded into a "
        "temporary folder, in 60 MB for an hour: set TMPDIR to another one "
        "where it is small, or in memory as in many containers",
    )


def _common():
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", required=True, help=_MODEL)
    common.add_argument("--revision", help="of a model on the hub")
    common.add_argument("--device", help="cpu or cuda (default: cuda if any)")
    common.add_argument(
        "--trust",
        action="store_true",
        help="execute the hyperparams.yaml of a model that cannot be parsed "
        "safely; it can do whatever you can",
    )
    common.add_argument(
        "--trim-silence",
        "--trim_silence",
        action="store_true",
        help="leave out silence at the ends of a recording and long pauses "
        "within; scores change with it, so use it for all recordings or for "
        "none, and calibrate anew",
    )
    common.add_argument(
        "--json", action="store_true", help="print one JSON object"
    )
    return common


def _many():
    many = argparse.ArgumentParser(add_help=False)
    many.add_argument(
        "--jobs",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="number of files read at a time (default: up to 4)",
    )
    many.add_argument(
        "--batch_seconds",
        type=float,
        default=100.0,
        help="seconds of audio in a batch; lower it if memory runs out "
        "(default: 100)",
    )
    many.add_argument(
        "--quiet", action="store_true", help="no progress on stderr"
    )
    return many


def _add_threshold(parser, instead="that of the model"):
    parser.add_argument(
        "--threshold",
        type=float,
        help=f"cosine above which it is one speaker; {instead} if not given",
    )
    parser.add_argument(
        "--p_target",
        type=float,
        default=0.5,
        help="prior probability of one speaker, for the calibrated decision "
        "(default: 0.5)",
    )


def drop_output():
    """Go on where the reader of the pipe has closed it, as ``head`` does.

    Without this the interpreter would print an error at exit.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
