"""Report documents for tests of their page, of any number of classes, with names that would break out of it."""

import random
from typing import Any

HOSTILE = "</title></style><script>alert(1)</script><b onload='x' \"q\"> & {{ 7 * 7 }} {% raw %}"


def report(num_classes: int = 3, name: str = "class", seed: int = 0, num_points: int = 5) -> dict[str, Any]:
    """A whole document: every key that any kind of report has, as written by the worker, with so many points."""
    rng = random.Random(seed)
    labels = [f"{name} {number}" for number in range(num_classes)]
    matrix = [[0] * num_classes for _ in labels]
    for row in range(num_classes):
        matrix[row][row] = rng.randint(3, 9)
        matrix[row][rng.randrange(num_classes)] += rng.randint(0, 3)
    interval = {"value": 0.1, "low": 0.02, "high": 0.2}
    evidence = {
        "verdict": "positive", "difference": 0.1, "low": 0.02, "high": 0.2, "num_samples": 40, "mcnemar_p": 0.01,
        "what": name, "optimism": name,
    }  # fmt: skip
    spread = {"num": 8, "quantiles": dict.fromkeys(("0", "0.05", "0.25", "0.5", "0.75", "0.95", "1"), 1.02)}
    spread["quantiles"] |= {"0.05": 0.9, "0.95": 1.2}
    points = [{"num_samples": size, "accuracy": 0.4 + size / 1000, "draws": [0.4, 0.5]} for size in (25, 60, 250)]
    groups = [
        {
            "name": one, "num_items": 900, "x": [rng.uniform(-9, 9) for _ in range(num_points)],
            "y": [rng.uniform(-9, 9) for _ in range(num_points)],
            "label": [rng.randrange(-1, num_classes) for _ in range(num_points)], "correct": correct,
        }
        for one, correct in ((name, None), ("test", [rng.randint(0, 1) for _ in range(num_points)]))
    ]  # fmt: skip
    feature_map = {"what": name, "labels": labels, "explained": [0.3, 0.1], "groups": groups}
    exposed = [
        {"name": label, "pretraining_class": name, "by": "name", "num_pretraining_classes": 1} for label in labels
    ]
    needed = [
        {
            "accuracy": accuracy, "outcome": outcome, "num_samples": number, "low": None, "high": number,
            "probability": 0.5, "sentence": name,
        }
        for accuracy, outcome, number in (
            (0.5, "fewer", None), (0.6, "within_the_labels", 200), (0.7, "foretold", 500), (0.8, "not_reached", None),
        )
    ]  # fmt: skip
    return {
        "job": "job_1",
        "flags": [{"code": "not_better_than_largest_class", "message": name}],
        "warnings": [name],
        "verdict": "positive",
        "verdicts": {"vs_frozen": "none", "vs_scratch": "positive", "vs_source_only": None},
        "verdict_evidence": {"vs_frozen": {**evidence, "verdict": "none"}, "vs_scratch": evidence},
        "served": {"what": name, "method": "fine_tune", "backbone": name, "why": name},
        "fallback": {
            "over": "scratch", "what": name, "why": name,
            "transfer": {"value": 0.5, "low": 0.4, "high": 0.6, "num_samples": 60, "what": name},
        },
        "metrics": {
            "test_accuracy": 0.8, "test_accuracy_low": 0.7, "test_accuracy_high": 0.9, "test_macro_f1": 0.75,
            "test_macro_f1_low": 0.7, "test_macro_f1_high": 0.8, "num_test": 60,
        },
        "baselines": {
            one: {"value": 0.7, "low": 0.6, "high": 0.8, "num_samples": 60, "what": name}
            for one in ("frozen", "scratch", "source_only")
        },
        "baselines_skipped": {"scratch": name},
        "gain": {"over": "scratch", **interval, "relative_error_reduction": 0.3},
        "seed_deviation": {
            "transfer": {"value": 0.01, "num_seeds": 3, "scores": [0.8, 0.81, 0.82], "what": name}, "scratch": None,
        },
        "per_class": [
            {"label": label, "num_samples": 9, "precision": 0.5, "recall": rng.random(), "f1": rng.random()}
            for label in labels[:-1]
        ] + [{"label": labels[-1], "num_samples": 0, "precision": None, "recall": None, "f1": None}],
        "worst_class": {"label": name, "recall": 0.2, "low": 0.1, "high": 0.4, "num_samples": 9},
        "worst_group": {
            "group": name, "accuracy": 0.3, "low": 0.1, "high": 0.5, "num_samples": 12, "num_groups": 3, "what": name,
        },
        "confusion": {"labels": labels, "matrix": matrix},
        "most_confused": [{"label": name, "predicted": name, "num_samples": 3, "fraction": 0.3}],
        "calibration": {
            "calibrated": True, "temperature": 1.3, "ece": 0.03, "adaptive_ece": 0.04, "brier": 0.3, "nll": 0.7,
            "bins": [
                {"low": 0.8, "high": 0.9, "num_samples": 12, "confidence": 0.85, "accuracy": 0.8},
                {"low": 0.9, "high": 1.0, "num_samples": 0, "confidence": None, "accuracy": None},
            ],
            "selection": {
                "num_samples": 90, "what": name, "before": {"ece": 0.1, "brier": 0.4, "nll": 1.0},
                "after": {"ece": 0.05, "brier": 0.3, "nll": 0.9},
            },
            "risk_coverage": {
                "aurc": 0.1, "optimal": 0.05, "excess": 0.05, "num_samples": 60,
                "points": [{"coverage": 0.5, "risk": 0.1}, {"coverage": 1.0, "risk": 0.2}],
            },
        },
        "estimate": {
            "value": 0.77, "low": 0.7, "high": 0.84, "known_accuracy": 0.82, "num_known": 190, "num_items": 60,
            "method": name, "warning": name, "found": 0.8, "error": -0.03,
        },
        "feature_distortion": {
            "mean_relative_change": 0.3, "linear_cka": 0.9, "num_samples": 60, "what": name,
            "stages": [{"stage": name, "linear_cka": 0.95}, {"stage": "features", "linear_cka": 0.9}],
            "other_images": {
                "what": "unlabelled", "dataset": name, "mean_relative_change": 0.5, "linear_cka": 0.7, "num_samples": 9,
                "stages": [{"stage": name, "linear_cka": 0.9}, {"stage": "features", "linear_cka": 0.7}],
            },
        },
        "robustness": {
            "num_images": 60, "num_test": 60, "what": name, "accuracy": 0.8, "mean_accuracy": 0.7, "mean_change": -0.1,
            "corruptions": [{"name": name, "what": name, "accuracy": 0.7, "change": {**interval, "high": -0.01}}],
        },
        "out_of_distribution": {
            "num_familiar": 60, "num_strange": 60, "what": name, "synthetic": True,
            "auroc": {"max_softmax": 0.9, "energy": 0.95, "nearest": None},
        },
        "feature_map": {**feature_map, "after": feature_map},
        "backbone_exposure": {"label_set": name, "num_classes": num_classes, "classes": exposed, "note": name},
        "domain": {
            "before": {"proxy_a": 1.5, "coral": 0.1, "mmd": 0.2, "frechet": 30.0}, "after": None, "validator": name,
            "num_source": 900, "num_target": 800,
            "candidates": [{"name": name, "served": True, "oracle_accuracy": 0.6, "reverse_accuracy": 0.5}],
        },
        "curve": {
            "points": points, "fit": {"a": 2.0, "b": 0.5, "c": 0.1}, "aulc": 0.5, "label_multiplier": None,
            "extrapolation": [{"num_samples": 500, "value": 0.7, "low": 0.6, "high": 0.8}],
            "reasons": {"label_multiplier": name},
            "labels_needed": needed,
        },
        "int8": {"published": False, "reason": "200 labelled pictures can be scored", "num_samples": 200},
        "fp16": {"published": False, "reason": "200 labelled pictures can be scored", "num_samples": 200},
        "forecast": {
            "expected": 0.78, "low": 0.7, "high": 0.86, "what": name, "found": 0.8, "error": 0.02, "inside": True,
            "more_images": [
                {"label": label, "images": 40, "gain_points": 3.0, "low": 2.0, "high": 4.0} for label in labels
            ],
            "more_images_skipped": name,
        },
        "mapping": {
            "backbone": name, "parameters": 1000, "mapped": 1000, "frozen": 900, "trained": 100, "new": 30,
            "tensors": [{"name": name, "shape": [3, 4], "what": "folded"}] * num_points,
        },
        "data": {
            "dataset": name, "digest": name, "splits": {"train": 40, "val": 10, name: 60}, "num_classes": num_classes,
            "images_per_class_median": 9.0, "images_per_class_min": 3,
            "leakage": {
                "num_test": 60, "num_exact": 1, "num_phash": 2, "num_cosine": None, "num_any": 2, "accuracy_with": 0.8,
                "accuracy_without": 0.79,
            },
            "exposure": {"label_set": "ImageNet-1k", "num_classes": num_classes, "classes": exposed, "note": name},
            "lineage": {
                "items": {
                    "num_test": 60, "num_seen_before": 2, "seen_in": [{"what": name, "id": name, "num_items": 2}],
                },
                "unknown": name,
            },
        },
        "cost": {
            "transfer_seconds": 3.0, "baselines_seconds": 1.0, "total_seconds": 200.0, "images_cached": 900,
            "images_extracted": 100, "extraction_seconds": 2.0, "images_per_second": 50.0, "trained_params": 130,
            "peak_memory_bytes": 2**29, "peak_gpu_memory_bytes": None, "device": "cpu", "precision": name,
            "energy_proxy": {"cpu_seconds": 9.0, "gpu_seconds": 0.0, "note": name},
        },
        "decisions": [
            {
                "step": name, "outcome": name, "reason": name, "score": 0.5, "low": 0.4, "high": 0.6, "seconds": 1.0,
                "forecast_seconds": None,
            }
        ],
        "details": {
            "scope": name, "epochs": 3, "best_epoch": 2, "learning_rate": 0.001, "ended": name, "served": name,
            "factors": {name: {"alpha": {**spread, "share_moved": 0.5}, "beta": {**spread, "share_moved": 0.1}}},
            "curve": [{"epoch": epoch, "val_accuracy": 0.5 + epoch / 10} for epoch in range(4)],
        },
        "follow_up": {"job": "job_2", "state": "succeeded", "fills": ["curve"]},
        "not_computed": {"out_of_distribution.auroc.nearest": name},
    }  # fmt: skip
