"""Versions of the libraries that are installed here."""

from importlib import metadata

RUNTIME = "onnxruntime"


def version(name: str) -> str:
    """Of a library, by the name of its package.

    onnxruntime comes in several packages, of which the one for a GPU takes the place of `onnxruntime`: so it is asked
    itself.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    if name != RUNTIME:
        return metadata.version(name)
    try:
        import onnxruntime
    except ImportError as error:
        raise metadata.PackageNotFoundError(name) from error
    return str(onnxruntime.__version__)
