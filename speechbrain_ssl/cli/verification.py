"""The commands ``evaluate``, ``compare`` and ``publish``: scripts of ``recipes/``."""

from speechbrain_ssl.cli.recipe import root, run_script, yaml_text


def run(options):
    """Evaluate a model on a trial list, compare models, or package one.

    Arguments
    ---------
    options : argparse.Namespace
        ``command``, ``model`` (of ``compare`` a list) and ``keys``, further
        arguments of the script.

    Returns
    -------
    tuple
        An empty result and no lines: the script has printed what it has to say.
    """
    folder = root() / "recipes" / "VoxCeleb" / "Verification"
    if options.command == "compare":
        arguments = options.model
    elif options.command == "publish":
        arguments = [f"--model={options.model}"]
    else:
        configuration = folder / "hparams" / "cosine_one_list.yaml"
        model = yaml_text(options.model)
        arguments = [str(configuration), f"--model={model}"]
    run_script(folder / f"{options.command}.py", arguments, options.keys)
    return {}, []
