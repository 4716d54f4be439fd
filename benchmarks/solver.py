"""Cross-validated logistic regression: the batched solver against scikit-learn one fit at a time, in one run.

Prints one JSON document. Synthetic features like a backbone's: ReLU of a low-rank mixture plus noise, standardised.
The relative gap of the objective to the better of the two solutions says what the time bought on either side.
"""

import argparse
import json
import os
import platform
import time

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from worker.solvers import folds, logistic, ridge
from worker.solvers.linear import Linear
from worker.solvers.spectrum import eigenbasis


def relu_features(
    num_items: int, num_dims: int, num_classes: int, rank: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of overlapping classes; about 0.84 of them can be told apart at the default sizes.

    Shape:
        returns [N, D] and [N].
    """
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, num_classes, num_items)
    centres = rng.normal(size=(num_classes, rank))
    latent = (rng.normal(size=(num_items, rank)) + 0.3 * centres[labels_N]) * 2 / np.sqrt(np.arange(1, rank + 1))
    offset = 0.7 * rng.normal(size=num_dims) - 0.7
    noise = 0.3 * rng.normal(size=(num_items, num_dims))
    feats_ND = np.maximum(latent @ rng.normal(size=(rank, num_dims)) + offset + noise, 0)
    mean_D, scale_D = logistic.standardise(feats_ND)
    return ((feats_ND - mean_D) / scale_D).astype(np.float32), labels_N


def objective(head: Linear, feats_ND: NDArray[np.floating], labels_N: NDArray[np.int64], strength: float) -> float:
    """Regularised loss of a head, in float64, on the scale that scikit-learn minimises."""
    logits_NC = head.outputs(feats_ND.astype(np.float64))
    loss = float((logsumexp(logits_NC, axis=1) - logits_NC[np.arange(labels_N.size), labels_N]).sum())
    return strength * loss + 0.5 * float(np.square(head.weight_CD.astype(np.float64)).sum())


def scikit_learn(
    feats_ND: NDArray[np.float32], labels_N: NDArray[np.int64], folds_N: NDArray[np.int64], strengths: tuple[float, ...]
) -> dict[str, float]:
    """One fit per fold and strength with scikit-learn's default tolerance, float32 as given.

    Returns seconds and, per strength, the mean held-out accuracy.
    """
    started = time.perf_counter()
    accuracy = {}
    for strength in strengths:
        scores = []
        for fold in range(int(folds_N.max()) + 1):
            train_N = folds_N != fold
            model = LogisticRegression(C=strength, max_iter=1000).fit(feats_ND[train_N], labels_N[train_N])
            scores.append(float((model.predict(feats_ND[~train_N]) == labels_N[~train_N]).mean()))
        accuracy[f"accuracy_{strength:g}"] = float(np.mean(scores))
    return {"seconds": time.perf_counter() - started, **accuracy}


def main() -> None:
    """Time both sides and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--dims", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rank", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="runs of the batched solver; the fastest counts")
    parser.add_argument("--skip-reference", action="store_true", help="do not run scikit-learn")
    options = parser.parse_args()
    feats_ND, labels_N = relu_features(options.items, options.dims, options.classes, options.rank, options.seed)
    folds_N = folds.stratified_group_folds(labels_N, np.arange(labels_N.size), 5, options.seed)
    runs = []
    for _ in range(options.repeats):
        marks = [time.perf_counter()]
        basis = eigenbasis(feats_ND)
        marks.append(time.perf_counter())
        cv = logistic.cross_validate(feats_ND, labels_N, folds_N, options.classes, basis=basis)
        marks.append(time.perf_counter())
        best = cv.best_index
        strength = cv.strengths[best]
        head = logistic.fit(feats_ND, labels_N, options.classes, strength, start=cv.whole_fits[best], basis=basis)
        marks.append(time.perf_counter())
        ridge.leave_one_out(feats_ND, ridge.one_hot(labels_N, options.classes), basis=basis)
        marks.append(time.perf_counter())
        runs.append(np.diff(marks))
    fastest = min(runs, key=lambda run: float(run[:3].sum()))
    figures: dict[str, object] = {
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "numpy": np.__version__,
        "shape": [options.items, options.dims, options.classes],
        "eigenbasis_seconds": round(float(fastest[0]), 3),
        "cross_validation_seconds": round(float(fastest[1]), 3),
        "refit_seconds": round(float(fastest[2]), 3),
        "total_seconds": round(float(fastest[:3].sum()), 3),
        "ridge_leave_one_out_seconds": round(float(fastest[3]), 3),
        "iterations": cv.num_iterations,
        "chosen_strength": strength,
        "accuracy": [round(float(value), 4) for value in cv.accuracy_SF.mean(axis=1)],
    }
    if not options.skip_reference:
        reference = scikit_learn(feats_ND, labels_N, folds_N, cv.strengths)
        started = time.perf_counter()
        model = LogisticRegression(C=strength, max_iter=1000).fit(feats_ND, labels_N)
        seconds = reference["seconds"] + time.perf_counter() - started
        ours = objective(head, feats_ND, labels_N, strength)
        known = objective(Linear(model.coef_, model.intercept_), feats_ND, labels_N, strength)
        figures["scikit_learn_seconds"] = round(seconds, 3)
        figures["scikit_learn_accuracy"] = [round(reference[f"accuracy_{c:g}"], 4) for c in cv.strengths]
        figures["ratio"] = round(seconds / float(fastest[:3].sum()), 2)
        figures["refit_objective_gap"] = ours / min(ours, known) - 1
        figures["scikit_learn_objective_gap"] = known / min(ours, known) - 1
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
