"""The commands ``evaluate`` and ``publish``, which run scripts of ``recipes/``."""

from speechbrain_ssl.cli.recipe import root, run_script, yaml_text


def run(options):
    """Evaluate a model on a trial list, or package it for others.

    Arguments
    ---------
    options : argparse.Namespace
        ``command``, ``model`` and ``keys``, further arguments of the script.

    Returns
    -------
    tuple
        An empty result and no lines: the script has printed what it has to say.
    """
    folder = root() / "recipes" / "VoxCeleb" / "Verification"
    arguments = [f"--model={options.model}"]
    if options.command == "evaluate":
        configuration = folder / "hparams" / "cosine_one_list.yaml"
        model = yaml_text(options.model)
        arguments = [str(configuration), f"--model={model}"]
    run_script(folder / f"{options.command}.py", arguments, options.keys)
    return {}, []
