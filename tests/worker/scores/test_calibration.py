import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torchmetrics.functional.classification import multiclass_calibration_error

from worker.scores import calibration


def overconfident(seed: int = 0, num_items: int = 500, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits_NC = rng.normal(size=(num_items, 6))
    probabilities_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    labels_N = np.array([rng.choice(6, p=row) for row in probabilities_NC])
    return factor * logits_NC, labels_N


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0, 8.0])
def test_temperature_is_the_minimum_that_scipy_finds(factor: float) -> None:
    logits_NC, labels_N = overconfident(factor=factor)
    found = calibration.fit_temperature(logits_NC.astype(np.float32), labels_N)
    known = minimize_scalar(
        lambda log_t: calibration.nll(logits_NC, labels_N, float(np.exp(log_t))), bounds=(-3, 3), method="bounded"
    )
    assert found == pytest.approx(float(np.exp(known.x)), rel=1e-3)
    assert found == pytest.approx(factor, rel=0.15)


def test_a_head_is_served_as_it_is_where_too_few_items_were_held_out() -> None:
    logits_NC, labels_N = overconfident(num_items=calibration.MIN_ITEMS)
    assert calibration.temperature(logits_NC, labels_N) == calibration.fit_temperature(logits_NC, labels_N) != 1.0
    assert calibration.temperature(logits_NC[1:], labels_N[1:]) == 1.0


def test_temperature_stays_bounded_on_separable_and_on_hopeless_logits() -> None:
    labels_N = np.array([0, 1, 2, 0])
    logits_NC = 5 * np.eye(3)[labels_N]
    assert calibration.fit_temperature(logits_NC, labels_N) == pytest.approx(calibration.MIN_TEMPERATURE, rel=1e-3)
    assert calibration.fit_temperature(-logits_NC, labels_N) == pytest.approx(calibration.MAX_TEMPERATURE, rel=1e-3)
    flat = calibration.fit_temperature(np.zeros((4, 3)), labels_N)
    assert calibration.MIN_TEMPERATURE <= flat <= calibration.MAX_TEMPERATURE


@pytest.mark.parametrize("seed", range(3))
def test_ece_equals_torchmetrics(seed: int) -> None:
    logits_NC, labels_N = overconfident(seed)
    probabilities_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    found = calibration.calibration(probabilities_NC, labels_N)
    known = multiclass_calibration_error(
        torch.from_numpy(probabilities_NC), torch.from_numpy(labels_N), num_classes=6, n_bins=15, norm="l1"
    )
    assert found.ece == pytest.approx(float(known), abs=1e-6)


def test_scores_equal_a_slow_loop() -> None:
    logits_NC, labels_N = overconfident(num_items=60)
    probabilities_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    found = calibration.calibration(probabilities_NC, labels_N)
    brier = nll = 0.0
    for row, label in zip(probabilities_NC, labels_N, strict=True):
        brier += sum((p - (c == label)) ** 2 for c, p in enumerate(row)) / 60
        nll -= np.log(row[label]) / 60
    ranked = sorted((row.max(), row.argmax() == label) for row, label in zip(probabilities_NC, labels_N, strict=True))
    adaptive = 0.0
    for start in range(0, 60, 4):
        part = ranked[start : start + 4]
        adaptive += len(part) / 60 * abs(np.mean([c for c, _ in part]) - np.mean([right for _, right in part]))
    assert (found.brier, found.nll) == pytest.approx((brier, nll))
    assert found.adaptive_ece == pytest.approx(adaptive)
    assert calibration.nll(logits_NC, labels_N) == pytest.approx(nll)


def test_document_is_json_and_bins_hold_every_item() -> None:
    logits_NC, labels_N = overconfident(num_items=40)
    probabilities_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    probabilities_NC[0] = [1.0, 0, 0, 0, 0, 0]
    document = json.loads(json.dumps(calibration.calibration(probabilities_NC, labels_N).document()))
    assert len(document["bins"]) == 15
    assert sum(entry["num_samples"] for entry in document["bins"]) == 40
    assert document["bins"][0]["confidence"] is None


def test_empty_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        calibration.fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int))
