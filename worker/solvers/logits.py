"""Scores of classes as probabilities. scipy has these too, but importing it would cost every warm job 0.2 s.

Shapes: N items, C classes; the classes are the last axis.
"""

import numpy as np
from numpy.typing import NDArray


def logsumexp(logits_NC: NDArray[np.floating]) -> NDArray[np.floating]:
    """Logarithm of the sum of exponentials over the last axis, without overflow.

    Shape:
        logits_NC: [..., C]; returns [...].
    """
    top = logits_NC.max(axis=-1, keepdims=True)
    return np.asarray(np.log(np.exp(logits_NC - top).sum(axis=-1)) + top[..., 0])


def log_softmax(logits_NC: NDArray[np.floating]) -> NDArray[np.floating]:
    """Log-probabilities.

    Shape:
        logits_NC: [..., C]; returns the same.
    """
    return np.asarray(logits_NC - logsumexp(logits_NC)[..., None])


def softmax(logits_NC: NDArray[np.floating]) -> NDArray[np.floating]:
    """Probabilities: rows that sum to one.

    Shape:
        logits_NC: [..., C]; returns the same.
    """
    shifted = np.exp(logits_NC - logits_NC.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
