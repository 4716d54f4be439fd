"""Small real graphs and specs for tests that need no torch."""

from datetime import UTC, datetime

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from app.artifact import spec
from app.artifact.precisions import SecondGraph
from app.artifact.preprocess import Preprocess

# Of a second graph.
MEASURED = SecondGraph(
    accuracy_change=0.001, accuracy_change_low=-0.004, accuracy_change_high=0.006, num_samples=900,
    what="out of 5 folds", num_calibration=128, size_bytes=3, float_size_bytes=10, latency_ratio_alone=0.9,
    latency_ratio_batch=0.8, machine="a processor",
)  # fmt: skip
SIDE = 8
NUM_FEATURES = 6


def backbone_bytes(num_features=NUM_FEATURES, side=SIDE, seed=0, opset=18, ir_version=10, batch="batch", extra_bytes=0):
    """`images` uint8 [N, side, side, 3] -> `features`: the mean colour through a Gemm and a ReLU.

    The inner name `logits` is one that a head uses as well.
    """
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, num_features)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "full"], ["levels"]),
        helper.make_node("ReduceMean", ["levels", "axes"], ["logits"], keepdims=0),
        helper.make_node("Gemm", ["logits", "weight", "bias"], ["mixed"], name="linear"),
        helper.make_node("Relu", ["mixed"], ["features"]),
    ]
    initializers = [
        numpy_helper.from_array(np.array(255, np.float32), "full"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(rng.normal(size=num_features).astype(np.float32), "bias"),
    ]
    if extra_bytes:
        initializers.append(numpy_helper.from_array(np.zeros(extra_bytes, np.uint8), "ballast"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, side, side, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, num_features])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return model.SerializeToString(deterministic=True)


def idle_backbone_bytes():
    """As `backbone_bytes`, and opened as well, but no image gets through it."""
    model = onnx.load_from_string(backbone_bytes())
    place = next(place for place, node in enumerate(model.graph.node) if node.op_type == "Gemm")
    model.graph.node[place].input[0] = "picked"
    model.graph.node.insert(place, helper.make_node("Gather", ["logits", "places"], ["picked"], axis=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 1, 99], np.int64), "places"))
    return model.SerializeToString(deterministic=True)


def wide_backbone_bytes(bytes_per_image):
    """As `backbone_bytes`, through a layer that takes so much memory."""
    copies = bytes_per_image // (4 * NUM_FEATURES)
    model = onnx.load_from_string(backbone_bytes())
    last = model.graph.node[-1]
    last.input[0] = "narrow"
    model.graph.node.pop()
    model.graph.node.extend(
        [
            helper.make_node("Unsqueeze", ["mixed", "middle"], ["one"]),
            helper.make_node("Expand", ["one", "wide"], ["many"]),
            helper.make_node("ReduceMax", ["many", "middle"], ["narrow"], keepdims=0),
            last,
        ]
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([1], np.int64), "middle"),
            numpy_helper.from_array(np.array([1, copies, 1], np.int64), "wide"),
        ]
    )
    return model.SerializeToString(deterministic=True)


def blinded_backbone_bytes():
    """As `backbone_bytes`, and NaN for an image that is white."""
    model = onnx.load_from_string(backbone_bytes())
    model.graph.node[-1].output[0] = "seen"
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["logits", "middle"], ["light"], keepdims=1),
            helper.make_node("Sub", ["one", "light"], ["dark"]),
            helper.make_node("Div", ["dark", "dark"], ["whole"]),
            helper.make_node("Mul", ["seen", "whole"], ["features"]),
        ]
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([1], np.int64), "middle"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
        ]
    )
    return model.SerializeToString(deterministic=True)


def heavy_backbone_bytes(num_layers=200, width=1024):
    """As `backbone_bytes`, through so many wide layers: hundreds of times slower."""
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.normal(size=(3, width)),
        "inner": rng.normal(size=(width, width)) / width**0.5,
        "last": rng.normal(size=(width, NUM_FEATURES)) / width**0.5,
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "first"], ["layer 0"]),
        *(helper.make_node("MatMul", [f"layer {at}", "inner"], [f"layer {at + 1}"]) for at in range(num_layers)),
        helper.make_node("MatMul", [f"layer {num_layers}", "last"], ["features"]),
    ]
    initializers = [numpy_helper.from_array(np.array([1, 2], np.int64), "axes")]
    initializers += [numpy_helper.from_array(np.float32(weight), name) for name, weight in weights.items()]
    graph = helper.make_graph(
        nodes,
        "heavy",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", NUM_FEATURES])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString(deterministic=True)


def backbone_reference(images, num_features=NUM_FEATURES, seed=0):
    """The same network in numpy."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, num_features)).astype(np.float32)
    bias = rng.normal(size=num_features).astype(np.float32)
    return np.maximum(images.astype(np.float64).mean(axis=(1, 2)) / 255 @ weight + bias, 0)


def softmax(logits):
    """Row by row, in plain Python."""
    rows = []
    for row in logits:
        powers = [np.exp(value - max(row)) for value in row]
        rows.append([power / sum(powers) for power in powers])
    return np.array(rows)


def images(num, side=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def preprocess(side=SIDE, **overrides):
    fields = {
        "height": side, "width": side, "resize": side, "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
    }  # fmt: skip
    return Preprocess(**{**fields, **overrides})


def make_spec(labels=("cat", "dog", "owl"), num_features=NUM_FEATURES, side=SIDE, **overrides):
    fields = {
        "task": "classification",
        "inputs": (spec.image_input(preprocess(side)),),
        "outputs": spec.classification_outputs(len(labels), num_features),
        "labels": labels,
        "recipe": {"method": "linear_probe"},
        "seed": 0,
        "dataset": {"id": "ds_1", "digest": "d" * 64, "splits": {"train": 7, "val": 1, "test": 2}},
        "backbone": {"name": "test/tiny", "digest": "b" * 64, "licence": "Apache-2.0", "feature_dim": num_features},
        "libraries": {"onnx": "1.20"},
        "metrics": {"test_accuracy": 0.75, "ece": None, "num_test": 2},
        "calibrated": True,
        "temperature": 1.5,
        "parity": spec.Parity(max_abs=1e-7, num_samples=2, tolerance=1e-4),
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return spec.Spec.model_validate({**fields, **overrides})


def run(data, **feeds):
    """Outputs by name."""
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, feeds), strict=True))


def head_weights(num_classes=4, num_features=6, seed=1):
    """Of a linear head."""
    rng = np.random.default_rng(seed)
    return {
        "weight_CD": rng.normal(size=(num_classes, num_features)),
        "bias_C": rng.normal(size=num_classes),
        "temperature": 1.7,
        "mean_D": rng.normal(size=num_features) * 3,
        "scale_D": rng.uniform(0.1, 3, num_features),
    }


def head_reference(features, weight_CD, bias_C, temperature, mean_D, scale_D):
    """What a linear head gives, number by number."""
    rows = []
    for row in features:
        standard = [(value - mean) / scale for value, mean, scale in zip(row, mean_D, scale_D, strict=True)]
        rows.append([(sum(w * x for w, x in zip(weights, standard, strict=True)) + b) / temperature
                     for weights, b in zip(weight_CD, bias_C, strict=True)])  # fmt: skip
    return softmax(rows)


def unit_reference(features, mean):
    """Centred features of length 1, number by number."""
    rows = []
    for row in features:
        centred = [value - middle for value, middle in zip(row, mean, strict=True)]
        length = sum(value * value for value in centred) ** 0.5
        rows.append([value / length for value in centred])
    return rows
