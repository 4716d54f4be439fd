import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from app.artifact import heads, preprocess
from app.errors import BadImage
from app.serving.predict import Prediction, Score, predict, rank
from app.serving.runtime import Runtime, Session
from tests.app.onnx_factories import backbone_bytes, make_spec

LABELS = ("cat", "dog", "owl")
WEIGHT = np.random.default_rng(5).normal(size=(3, 6)) * 4
SPEC = make_spec(LABELS)


@pytest.fixture(scope="module")
def model():
    return Runtime(Session(backbone_bytes()), Session(heads.linear(WEIGHT, np.zeros(3))))


@pytest.fixture(scope="module")
def executor():
    with ThreadPoolExecutor(4) as threads:
        yield threads


def encoded(seed, size=(20, 14), form="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels //= np.uint8(1 + seed % 5)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("num", [1, 2, 16, 17, 47])
def test_each_image_gets_what_it_gets_alone_in_upload_order(model, executor, num):
    data = [encoded(seed, form=("PNG", "JPEG", "WEBP")[seed % 3]) for seed in range(num)]
    found = predict(model, SPEC, data, executor, top_k=3)
    assert len(found) == num
    for item, prediction in zip(data, found, strict=True):
        row = model.run(preprocess.load(item, SPEC.preprocess)[None]).probabilities[0]
        order = sorted(range(3), key=lambda index: -row[index])
        assert [score.label for score in prediction.scores] == [LABELS[index] for index in order]
        assert [score.score for score in prediction.scores] == pytest.approx([row[index] for index in order], abs=1e-6)
        assert (prediction.label, prediction.score) == (prediction.scores[0].label, prediction.scores[0].score)
    if num > 16:
        assert len({prediction.score for prediction in found}) > 10


def test_no_images_no_predictions(model, executor):
    assert predict(model, SPEC, [], executor, top_k=3) == []


def test_top_k_cuts_and_more_than_all_is_all(model, executor):
    assert [len(predict(model, SPEC, [encoded(0)], executor, top_k=k)[0].scores) for k in (1, 2, 3, 100)] == [
        1,
        2,
        3,
        3,
    ]


def test_equal_scores_keep_the_order_of_the_labels():
    found = rank(np.array([0.1, 0.3, 0.3, 0.3], np.float32), ("d", "c", "b", "a"), 3, None)
    assert [score.label for score in found.scores] == ["c", "b", "a"]
    assert found.label == "c"


def test_equal_scores_keep_the_order_of_many_labels():
    probabilities = np.full(200, 1 / 201, np.float32)
    probabilities[100] = 2 / 201
    labels = [str(index) for index in range(200)]
    found = [score.label for score in rank(probabilities, labels, 200, None).scores]
    assert found == ["100", *labels[:100], *labels[101:]]


def test_a_threshold_withholds_the_label_only():
    row = np.array([0.25, 0.75], np.float32)
    scores = (Score("b", 0.75), Score("a", 0.25))
    assert rank(row, ("a", "b"), 2, 0.75) == Prediction("b", 0.75, scores)
    assert rank(row, ("a", "b"), 2, 0.76) == Prediction(None, 0.75, scores)
    assert rank(row, ("a", "b"), 0, None) == Prediction("b", 0.75, ())


@pytest.mark.parametrize(("index", "num"), [(0, 1), (3, 5), (16, 20), (39, 40)])
def test_a_bad_image_is_named_by_its_place(model, executor, index, num):
    data = [encoded(seed) for seed in range(num)]
    data[index] = b"just text"
    with pytest.raises(BadImage, match=rf"^image {index}: expected one of JPEG") as caught:
        predict(model, SPEC, data, executor, top_k=1)
    assert caught.value.extra == {"index": index}
    assert caught.value.code == "image_unreadable"


def test_the_first_bad_image_is_the_one_named_with_its_own_code(model, executor):
    whole = encoded(1, size=(64, 64), form="JPEG")
    data = [encoded(0), whole[: len(whole) // 2], b"text"]
    with pytest.raises(BadImage, match=r"^image 1: ") as caught:
        predict(model, SPEC, data, executor, top_k=1)
    assert caught.value.code == "image_truncated"


def test_decoding_runs_at_most_two_batches_ahead(model):
    """Counts decodes handed out but not yet taken by a run: memory must not grow with the request."""

    class Counting(ThreadPoolExecutor):
        submitted = 0

        def submit(self, *args, **kwargs):
            self.submitted += 1
            return super().submit(*args, **kwargs)

    done, most = 0, 0

    class Watching:
        def run(self, pixels):
            nonlocal done, most
            most = max(most, executor.submitted - done)
            done += len(pixels)
            return model.run(pixels)

    with Counting(2) as executor:
        assert len(predict(Watching(), SPEC, [encoded(0)] * 100, executor, top_k=1)) == 100
    assert executor.submitted == done == 100
    assert most == 32


def test_after_a_bad_image_nothing_keeps_decoding(model):
    with ThreadPoolExecutor(1) as executor:
        gate = threading.Event()
        data = [b"text"] + [encoded(seed) for seed in range(31)]
        with pytest.raises(BadImage):
            predict(model, SPEC, data, executor, top_k=1)
        marker = executor.submit(gate.set)
        marker.result()
        assert gate.is_set()
        assert executor._work_queue.qsize() == 0
