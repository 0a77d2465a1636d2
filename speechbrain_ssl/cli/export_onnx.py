"""The command ``speechbrain-ssl export-onnx model``: a model without torch."""

from speechbrain_ssl.cli.common import check_output
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.onnx import export_onnx


def run(options):
    """Write features and encoder of a model as one ONNX file.

    Arguments
    ---------
    options : argparse.Namespace
        ``model`` and ``output``.

    Returns
    -------
    tuple
        An empty result, and the line for a reader.

    Raises
    ------
    ConfigError
        If there is no such model, it cannot be exported, or a package that the
        export needs is not installed.
    ParityError
        If the embeddings of the file differ from the model's.
    """
    check_output(options.output, (".onnx",))
    least = export_onnx(options.output, *load_encoder(options.model))
    return {}, [
        f"{options.output}: its embeddings have a cosine of {least:.6f} or more "
        "with the model's"
    ]
