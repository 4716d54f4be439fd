"""Does the published graph say what the trained model said? The gate before a model is published."""

import numpy as np
from numpy.typing import NDArray

from app.artifact.spec import Parity
from app.serving.runtime import Runtime


def compare(
    runtime: Runtime,
    images_NHWC: NDArray[np.uint8],
    expected_NC: NDArray[np.floating],
    tolerance: float,
) -> Parity:
    """Runs the graph that will be served and takes the largest difference from the training side's probabilities.

    Shape:
        images_NHWC: [N, H, W, 3], N images
        expected_NC: [N, C], N images and C classes

    Raises:
        ValueError: the shapes of the probabilities differ.
    """
    found_NC = runtime.run(images_NHWC).probabilities
    if found_NC.shape != expected_NC.shape:
        raise ValueError(f"expected probabilities of shape {expected_NC.shape}; found {found_NC.shape}")
    max_abs = float(np.abs(found_NC.astype(np.float64) - expected_NC).max())
    return Parity(max_abs=max_abs, num_samples=len(images_NHWC), tolerance=tolerance)
