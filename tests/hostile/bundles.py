"""Bundles that must be refused: each made of a whole one, with the code and words of its refusal.

OUTSIDE: seen in the archive and its spec. INSIDE: seen by opening the files. COSTLY: only by running out of what a
child may have.
"""

import io
import json
import math
import pickle
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from app.artifact import heads, sample, selection, tensors
from app.artifact.selection import SelectionPredictions
from app.artifact.spec import SPEC_VERSION
from tests import factories
from tests.app import onnx_factories, sample_factories
from tests.app.bundle_factories import Files, edit_spec, pack, replace

MARKUP = "<img src=x onerror=alert(1)>"
Case = tuple[Callable[[Files], bytes], str, str]


def zipped(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """Members in any order, as often as wanted."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name")
        for name, data in members:
            target.writestr(name, data)
    return out.getvalue()


def added(name: str | zipfile.ZipInfo) -> Callable[[Files], bytes]:
    return lambda files: zipped([*files.items(), (name, b"x")])


def without(files: Files, name: str) -> Files:
    return {other: data for other, data in files.items() if other != name}


def linked(files: Files) -> bytes:
    entry = zipfile.ZipInfo("README.md")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped([*without(files, "README.md").items(), (entry, b"/etc/passwd")])


def lying(size_bytes: int) -> Callable[[Files], bytes]:
    """The directory says another size than README.md has."""

    def make(files: Files) -> bytes:
        data = bytearray(zipped(files.items()))
        place = data.index(b"README.md", data.index(b"PK\x01\x02")) - 46
        struct.pack_into("<L", data, place + 24, size_bytes)
        return bytes(data)

    return make


def spec(**fields: Any) -> Callable[[Files], bytes]:
    return lambda files: pack(edit_spec(files, **fields))


def endless(files: Files) -> bytes:
    """A number that JSON can spell, and no float can hold."""
    described = edit_spec(files, recipe={"method": "linear_probe", "rate": "endless"})
    return pack({**described, "spec.json": described["spec.json"].replace(b'"endless"', b"-1e999")})


def backbone(**fields: Any) -> Callable[[Files], bytes]:
    return lambda files: pack(edit_spec(files, backbone={**json.loads(files["spec.json"])["backbone"], **fields}))


def giant(files: Files) -> bytes:
    shape = json.loads(files["spec.json"])["inputs"][0]
    shape["preprocessing"] |= {"height": 100_000, "width": 100_000, "resize": 100_000}
    shape["shape"] = [None, 100_000, 100_000, 3]
    return pack(edit_spec(files, inputs=[shape]))


def keyed(files: Files) -> bytes:
    listed = json.loads(files["spec.json"])["files"]
    listed["head.onnx"]["key"] = "bundles/default/other/head.onnx"
    return pack(edit_spec(files, files=listed))


def fewer(files: Files) -> bytes:
    """A spec of two labels, consistent in itself, over a head of three."""
    outputs = json.loads(files["spec.json"])["outputs"]
    outputs[0]["shape"][-1] = 2
    return pack(edit_spec(files, labels=["cat", "dog"], outputs=outputs))


def turned(labels: list[str]) -> list[str]:
    """Each label in the place of the one before."""
    return [*labels[1:], labels[0]]


def turned_labels(files: Files) -> Files:
    """A spec that is consistent in itself, and calls each of the head's outputs by the next one's name."""
    return edit_spec(files, labels=turned(json.loads(files["spec.json"])["labels"]))


def turned_throughout(files: Files) -> bytes:
    """The predictions say the same order as the spec; only the class that each row names is what it was."""
    table = pq.read_table(io.BytesIO(files["predictions.parquet"]))
    labels = turned(json.loads(table.schema.metadata[b"labels"]))
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"labels": json.dumps(labels)}), out)
    return pack(replace(turned_labels(files), "predictions.parquet", out.getvalue()))


def other(name: str, content: bytes) -> Callable[[Files], bytes]:
    return lambda files: pack(replace(files, name, content))


def graph(change: Callable[[Any], None]) -> Callable[[Files], bytes]:
    def make(files: Files) -> bytes:
        model = onnx.load_model_from_string(files["backbone.onnx"])
        change(model)
        return pack(replace(files, "backbone.onnx", model.SerializeToString()))

    return make


def elsewhere(model: Any) -> None:
    tensor = model.graph.initializer[2]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def broken(model: Any) -> None:
    tensor = model.graph.initializer[2]
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def custom(model: Any) -> None:
    model.graph.node.append(helper.make_node("Rm", ["features"], ["gone"], domain="evil.ops"))
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))


def overflowing(model: Any) -> None:
    """Finite weights whose products are not."""
    tensor = model.graph.initializer[2]
    tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), 3e38, np.float32), tensor.name))


def huge(model: Any) -> None:
    """Two terabytes that a hundred bytes ask for."""
    nodes = [
        helper.make_node("ConstantOfShape", ["sizes"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["nothing"], keepdims=0),
        *model.graph.node,
        helper.make_node("Add", ["almost", "nothing"], ["features"]),
    ]
    nodes[-2].output[0] = "almost"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1_000_000, 500_000], np.int64), "sizes"))


def crowded(model: Any) -> None:
    """More weights than the bounds of a file of that size leave room for, once they are made."""
    nodes = [helper.make_node("Expand", ["full", "sizes"], [f"e{place}"]) for place in range(8)]
    nodes.append(helper.make_node("Max", [f"e{place}" for place in range(8)], ["large"]))
    nodes.append(helper.make_node("ReduceMax", ["large"], ["most"], keepdims=0))
    last = model.graph.node[-1]
    last.output[0] = "almost"
    model.graph.node.extend([*nodes, helper.make_node("Min", ["almost", "most"], ["features"])])
    model.graph.initializer.append(numpy_helper.from_array(np.array([1024, 1024, 400], np.int64), "sizes"))


def weights(**changes: Any) -> Callable[[Files], bytes]:
    weight, bias = factories.head_weights(1, 3)
    return other("weights.safetensors", tensors.dump({"weight": weight, "bias": bias, **changes}))


def features(**changes: Any) -> Callable[[Files], bytes]:
    whole = {"features": np.zeros((1, 6), np.float32), "labels": np.zeros(1, np.int64), "rows": np.zeros(1, np.int64)}
    return other("features.safetensors", tensors.dump({**whole, **changes}))


def tried(**changes: Any) -> Callable[[Files], bytes]:
    whole = sample.pack(sample_factories.make(*factories.head_weights(1, 3)))
    return other("sample.safetensors", tensors.dump({**whole, **changes}))


def selected(label: str) -> Callable[[Files], bytes]:
    def make(files: Files) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "selection.parquet"
            selection.write(path, SelectionPredictions(["s1"], [label], ["val"], {"transfer": [label]}, "out of fold"))
            return pack(replace(files, "selection.parquet", path.read_bytes()))

    return make


def head(seed: int, num_labels: int = 3) -> bytes:
    return heads.linear(*factories.head_weights(seed, num_labels))


def another_head_altogether(files: Files) -> bytes:
    """Hashes and shapes are right; only the stored predictions are not what this head says."""
    weight, bias = factories.head_weights(9, 3)
    changed = replace(files, "head.onnx", head(9))
    return pack(replace(changed, "weights.safetensors", tensors.dump({"weight": weight, "bias": bias})))


OUTSIDE: dict[str, Case] = {
    "not a zip": (lambda _: b"GIF89a" + b"\0" * 100, "not_an_archive", "zip archive"),
    "nothing": (lambda _: b"", "not_an_archive", "0 bytes"),
    "cut short": (lambda files: pack(files)[:-30], "not_an_archive", "zip archive"),
    "a comment": (lambda files: pack(files)[:-2] + b"\1\0c", "not_an_archive", "without a comment"),
    "a path upwards": (added("../../evil.py"), "bundle_unsafe", "evil.py"),
    "an absolute path": (added("/etc/cron.d/evil"), "bundle_unsafe", "evil"),
    "a folder": (lambda files: zipped((f"tiny/{name}", files[name]) for name in files), "bundle_unsafe", "tiny/"),
    "an unknown file": (added("model.pkl"), "bundle_unsafe", "model.pkl"),
    "markup as a name": (added(MARKUP), "bundle_unsafe", "no file of a bundle"),
    "a name twice": (added("README.md"), "bundle_unsafe", "twice"),
    "a link": (linked, "bundle_unsafe", "a link"),
    "a bomb": (lambda files: zipped({**files, "README.md": bytes(70_000_000)}.items()), "bundle_too_large", "unpacked"),
    "a size that is too small": (lying(1), "not_an_archive", "README.md"),
    "a size that is too large": (lying(10**6), "not_an_archive", "README.md"),
    "a file is missing": (lambda files: pack(without(files, "head.onnx")), "bundle_invalid", "head.onnx is missing"),
    "no spec": (lambda files: pack(without(files, "spec.json")), "bundle_invalid", "spec.json"),
    "a wrong hash": (lambda files: pack({**files, "README.md": b"# Tiny\n"}), "bundle_invalid", "another content"),
    "a newer spec": (spec(spec_version=SPEC_VERSION + 1), "bundle_too_new", "spec_version"),
    "a spec with more": (spec(run="rm -rf /"), "bundle_invalid", "run"),
    "a deep spec": (lambda files: pack({**files, "spec.json": b"[" * 200_000}), "bundle_invalid", "spec.json"),
    "another task": (spec(task="detection"), "unsupported_task", "detection"),
    "a label twice": (spec(labels=["cat", "cat", "owl"]), "bundle_invalid", "distinct"),
    "a label that no database holds": (spec(labels=["cat", "dog", "o\0l"]), "bundle_invalid", "NUL"),
    "text that is no text": (spec(recipe={"method": "\0"}), "bundle_invalid", "NUL"),
    "a number that is none": (spec(recipe={"deep": [{"rate": math.nan}]}), "bundle_invalid", "finite"),
    "a number beyond all": (endless, "bundle_invalid", "finite"),
    "a spec of many lists": (spec(recipe={"x": [[]] * 300_000}), "bundle_invalid", "at most 500000 values; found 600"),
    "a long spec": (spec(recipe={"x": "x" * 2**23}), "bundle_invalid", "at most 8388608 bytes; found 839"),
    "a spec that is wrong all over": (spec(labels=[1] * 400_000), "bundle_invalid", "found 400000 problems; publish"),
    "a spec that is wrong at length": (spec(**{"x" * 2**20: 1}), "bundle_invalid", "found xxx"),
    "markup as the backbone": (backbone(name=f"timm/{MARKUP}"), "bundle_invalid", "PROVIDER/NAME"),
    "a digest that is a path": (backbone(digest="../../own"), "bundle_invalid", "sha256"),
    "a key of another version": (keyed, "bundle_invalid", "shared"),
    "a giant image": (giant, "bundle_invalid", "sides of 1 to"),
}  # fmt: skip

INSIDE: dict[str, Case] = {
    "too few labels": (fewer, "bundle_invalid", "probabilities"),
    "labels in another order": (
        lambda files: pack(turned_labels(files)), "bundle_invalid", "label 0 is 'dog' in one and 'cat' in the other"),
    "labels in another order everywhere": (turned_throughout, "bundle_invalid", "row 0 of predictions.parquet names"),
    "a custom operator": (graph(custom), "model_custom_operators", "evil.ops::Rm"),
    "weights elsewhere": (graph(elsewhere), "model_external_data", "weight"),
    "weights that are no numbers": (graph(broken), "weights_not_finite", "weight"),
    "numbers that overflow": (graph(overflowing), "bundle_invalid", "gave"),
    "no graph": (other("head.onnx", b"import os"), "model_unreadable", "ONNX"),
    "another width": (other("backbone.onnx", onnx_factories.backbone_bytes(7)), "bundle_invalid", "features"),
    "another size": (other("backbone.onnx", onnx_factories.backbone_bytes(side=9)), "bundle_invalid", "[N, 8, 8, 3]"),
    "one image at a time": (other("backbone.onnx", onnx_factories.backbone_bytes(batch=1)), "bundle_invalid", "[N, 8"),
    "another head": (other("head.onnx", head(2)), "bundle_invalid", "weights.safetensors says"),
    "another head altogether": (another_head_altogether, "bundle_invalid", "predictions.parquet"),
    "a pickle": (other("weights.safetensors", pickle.dumps({"weight": [1.0]})), "weights_unreadable", "pickles"),
    "a huge header": (
        other("weights.safetensors", (2**62).to_bytes(8, "little") + b'{"weight": '), "weights_unreadable", "header"),
    "arrays that are no numbers": (weights(bias=np.full(3, np.inf)), "weights_not_finite", "bias"),
    "arrays of another shape": (weights(weight=np.zeros((3, 5))), "bundle_invalid", "linear head"),
    "arrays under other names": (
        other("weights.safetensors", tensors.dump({"w": np.zeros(3)})), "bundle_invalid", "weights.safetensors"),
    "no predictions": (other("predictions.parquet", b"PAR1PAR1"), "bundle_invalid", "predictions.parquet"),
    "a selection that is none": (other("selection.parquet", b"PAR1PAR1"), "bundle_invalid", "selection.parquet"),
    "a selection of other classes": (selected("lion"), "bundle_invalid", "one of 3 labels"),
    "rows that are not there": (features(rows=np.array([10**9])), "bundle_invalid", "features.safetensors"),
    "features of another width": (features(features=np.zeros((1, 7), np.float32)), "bundle_invalid", "features"),
    "a record that is none": (other("seen.safetensors", tensors.dump({"x": np.zeros(1)})), "bundle_invalid", "seen"),
    "a reference of none": (
        other("reference.safetensors", tensors.dump({"version": np.array(1), "mean": np.zeros(3)})),
        "bundle_invalid",
        "reference",
    ),
    "a sample of another head": (
        tried(scores=np.full((2, 3), 1 / 3, np.float32)), "bundle_invalid", "what is stored there"),
    "a sample of no picture": (
        tried(pictures=np.zeros(8, np.uint8), lengths=np.array([4, 4])), "bundle_invalid", "sample.safetensors"),
    "a sample without an end": (tried(lengths=np.array([1, 2**62])), "bundle_invalid", "pictures of at most"),
    "a report that is none": (other("report.json", b"[NaN]"), "bundle_invalid", "report.json"),
    "a report of brackets": (other("report.json", b"[" * 200_000), "bundle_invalid", "report.json"),
    "a card that is no text": (other("README.md", b"\xff\xfe"), "bundle_invalid", "README.md"),
}  # fmt: skip

COSTLY: dict[str, Case] = {
    "terabytes of zeros": (graph(huge), "import_too_costly", "fits into memory"),
    "too many large results": (graph(crowded), "import_too_costly", "fits into memory"),
}
