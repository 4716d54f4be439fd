"""What is said of installed libraries, also where onnxruntime's package for a GPU took the usual one's place."""

from importlib import metadata

import numpy
import onnxruntime
import pytest

from app import libraries


def test_the_runtime_is_asked_itself(gpu_package):
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("onnxruntime")
    assert libraries.version("onnxruntime") == onnxruntime.__version__
    assert libraries.version("numpy") == numpy.__version__


def test_what_is_not_installed():
    with pytest.raises(metadata.PackageNotFoundError):
        libraries.version("graft-of-nowhere")
