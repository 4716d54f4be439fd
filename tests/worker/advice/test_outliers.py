"""Outliers against a slow loop; injected ones are found; hardly any in plain data."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from worker.advice import outliers


def by_loop(unit, labels, groups):
    found = []
    for item in range(len(unit)):
        apart = sorted(
            float(np.linalg.norm(unit[item] - unit[other]))
            for other in range(len(unit))
            if labels[other] == labels[item] and groups[other] != groups[item]
        )
        found.append(sum(apart[: outliers.NEIGHBOURS]) / outliers.NEIGHBOURS)
    return np.array(found)


def blobs(seed, num=60, width=12, num_classes=3):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), num)
    return (rng.normal(size=(len(labels), width)) + 12 * np.eye(num_classes, width)[labels]).astype(np.float32), labels


def test_distances_are_those_of_the_loop():
    feats, labels = blobs(0, num=20)
    groups = np.arange(len(labels))
    groups[5] = groups[3]  # a copy, which is no neighbour; as reference only one of the two stands
    unit = outliers.unit(feats)
    found = outliers.measure(unit, labels, groups, 0)
    kept = np.arange(len(labels)) != 5
    np.testing.assert_allclose(found.distance_N[kept], by_loop(unit[kept], labels[kept], groups[kept]), rtol=1e-4)
    assert np.isfinite(found.z_N).all()


def test_references_are_a_sample_of_a_large_class(monkeypatch):
    feats, labels = blobs(1, num=100, num_classes=1)
    unit, groups = outliers.unit(feats), np.arange(100)
    whole = outliers.measure(unit, labels, groups, 0).distance_N
    monkeypatch.setattr(outliers, "REFERENCES", 60)
    part = outliers.measure(unit, labels, groups, 0).distance_N
    assert (part >= whole - 1e-5).all()
    assert np.corrcoef(whole, part)[0, 1] > 0.8


def test_injected_images_of_elsewhere_are_found_and_little_else():
    right = named = 0
    for seed in range(5):
        feats, labels = blobs(seed, num=100, width=30)
        rng = np.random.default_rng(100 + seed)
        strange = rng.choice(len(labels), 4, replace=False)
        feats[strange] = 12 * np.eye(30, dtype=np.float32)[20 + np.arange(4)] + rng.normal(size=(4, 30))
        apart = outliers.measure(outliers.unit(feats), labels, np.arange(len(labels)), 0)
        found = outliers.find(apart, ["x"] * len(labels), np.zeros(len(labels), bool)).findings
        named += len(found)
        right += len({one.rows[0] for one in found} & set(strange.tolist()))
    assert right >= 19
    assert right / named >= 0.5


def test_scans_among_emoji_are_the_farthest(emoji, embed):
    """Real images of elsewhere under the names of classes: most are named, hardly any of the others are."""
    feats, labels = emoji
    strange = embed([scan(number) for number in (0, 150, 300, 450)])
    both = np.concatenate([feats, strange])
    given = np.concatenate([labels, [0, 2, 4, 6]])
    apart = outliers.measure(outliers.unit(both), given, np.arange(len(both)), 0)
    rank = np.argsort(np.argsort(-np.nan_to_num(apart.z_N, nan=-9.0)))
    assert (rank[-4:] < 0.1 * len(both)).all()
    plain = outliers.measure(outliers.unit(feats), labels, np.arange(len(feats)), 0)
    assert np.nanmean(plain.z_N > outliers.MIN_Z) <= 0.01


def scan(number):
    """A handwritten digit of scikit-learn as a picture."""
    pixels = np.uint8(load_digits().images[number] * 255 / 16)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((96, 96)).save(out, "PNG")
    return out.getvalue()


def test_plain_data_has_hardly_any():
    """False positives: at most one in a hundred images."""
    total = 0
    for seed in range(5):
        feats, labels = blobs(seed, num=200)
        apart = outliers.measure(outliers.unit(feats), labels, np.arange(len(labels)), 0)
        total += len(outliers.find(apart, [None] * len(labels), np.zeros(len(labels), bool)).findings)
    assert total <= 5 * 600 / 100


def test_no_more_than_a_small_share_is_named_the_farthest_first():
    z = np.linspace(0, 20, 200)
    found = outliers.find(outliers.Distances(np.ones(200), z), ["a"] * 200, np.zeros(200, bool)).findings
    assert [one.rows[0] for one in found] == [199, 198, 197, 196]
    assert all(one.confidence is None and one.action == "remove" for one in found)


def test_what_another_finding_explains_is_left_out():
    z = np.array([9.0, 8.0, 0.0])
    found = outliers.find(outliers.Distances(np.ones(3), z), ["a"] * 3, np.array([True, False, False])).findings
    assert [one.rows for one in found] == [(1,)]


def test_without_labels_all_images_are_one_class():
    feats, _ = blobs(0)
    found = outliers.measure(outliers.unit(feats), np.full(len(feats), -1), np.arange(len(feats)), 0)
    assert np.isfinite(found.distance_N).all()


def test_small_classes_have_no_distance():
    feats, labels = blobs(0, num=outliers.MIN_CLASS - 1)
    found = outliers.measure(outliers.unit(feats), labels, np.arange(len(labels)), 0)
    assert np.isnan(found.z_N).all()
    assert "15 different pictures" in outliers.find(found, ["a"] * len(labels), np.zeros(len(labels), bool)).reason


def test_equal_values_have_no_spread():
    assert outliers.modified_z(np.ones(5)).tolist() == [0.0] * 5
    rare = outliers.modified_z(np.array([1.0, 1.0, 1.0, 1.0, 5.0]))
    assert rare[4] == pytest.approx(4 / (0.8 * 1.253314))
