"""List the configurations of ``train`` and ``rounds``, or print one."""

from speechbrain_ssl.cli.recipe import TASKS, configurations, named, root
from speechbrain_ssl.config_base import merge


def run(options):
    """Run the command ``config``.

    Arguments
    ---------
    options : argparse.Namespace
        ``name`` of a configuration, or None.

    Returns
    -------
    tuple
        A dict from the names to the titles, or with the text of one, and the
        lines for a reader.

    Raises
    ------
    ConfigError
        If there is no such configuration.
    """
    if options.name is not None:
        text = merge(named(options.name, TASKS)).text
        note = f"# {root() / 'hparams'}: the files there explain the keys"
        return {options.name: text}, [note, *text.splitlines()]
    titles, lines = {}, []
    for command in TASKS:
        lines.append(
            f"speechbrain-ssl {command} FOLDER --config=NAME, where NAME is"
        )
        for name, path in configurations(command).items():
            titles[name] = title(path.read_text(encoding="utf-8"))
            lines.append(f"  {name:24}{titles[name]}")
    return titles, lines


def title(text):
    """Return the first paragraph of a configuration's header.

    Arguments
    ---------
    text : str
        The configuration.

    Returns
    -------
    str

    Example
    -------
    >>> title("# #####\\n# Model: ECAPA,\\n# on audio\\n#\\n# More.\\nlr: 1")
    'ECAPA, on audio'
    """
    first, _, _ = text.partition("# Model: ")[2].partition("\n#\n")
    return first.replace("\n# ", " ")
