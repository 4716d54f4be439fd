import dataclasses
import json
import math
import string
from datetime import UTC

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.artifact import spec
from app.errors import BadRequest, GraftError
from tests.app.onnx_factories import MEASURED, make_spec, preprocess

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def specs(draw):
    labels = tuple(draw(st.lists(TEXT, unique=True, min_size=1, max_size=5)))
    num_features, side = draw(st.integers(1, 4096)), draw(st.integers(1, 2048))
    unit = st.floats(0, 1)
    prepared = preprocess(
        side,
        resize=draw(st.integers(1, 4096)),
        interpolation=draw(st.sampled_from(["bilinear", "bicubic"])),
        mean=draw(st.tuples(unit, unit, unit)),
        std=draw(st.tuples(unit, unit, unit)),
    )
    files = st.builds(
        spec.File, sha256=HEX, size_bytes=st.integers(0, 1 << 40), key=st.none() | TEXT.map(lambda key: "shared/" + key)
    )
    name = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)
    return make_spec(
        labels,
        num_features,
        inputs=(spec.image_input(prepared),),
        recipe=draw(st.dictionaries(TEXT, JSON, max_size=4)),
        seed=draw(st.integers(0, 1 << 62)),
        dataset=draw(
            st.none()
            | st.builds(
                spec.Dataset, id=TEXT, digest=TEXT, splits=st.dictionaries(TEXT, st.integers(0, 1 << 40), max_size=3)
            )
        ),
        backbone={"name": draw(TEXT), "digest": draw(TEXT), "licence": draw(TEXT), "feature_dim": num_features},
        libraries=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        metrics=draw(st.dictionaries(TEXT, st.none() | NUMBER | st.integers(-(1 << 60), 1 << 60), max_size=4)),
        calibrated=draw(st.booleans()),
        temperature=draw(st.floats(1e-6, 1e6)),
        files=draw(st.dictionaries(name, files, max_size=3)),
        parity=draw(st.builds(spec.Parity, NUMBER, st.integers(0, 64), NUMBER)),
        created_at=draw(st.datetimes(timezones=st.just(UTC))),
    )


@settings(max_examples=150, deadline=None)
@given(specs())
def test_what_is_written_is_read_back(written):
    data = spec.dump(written)
    read = spec.load(data)
    assert read == written
    assert spec.dump(read) == data


def places(value, way=()):
    """The way to everything in a document."""
    if way:
        yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, one in inner:
        yield from places(one, (*way, step))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=2) | st.dictionaries(st.text(max_size=5), one, max_size=2), max_leaves=4
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), value=VALUES)
def test_any_one_change_is_refused_in_words_or_read_back(data, value):
    document = json.loads(spec.dump(make_spec()))
    *way, last = data.draw(st.sampled_from(list(places(document))))
    inner = document
    for step in way:
        inner = inner[step]
    inner[last] = value
    try:
        read = spec.load(json.dumps(document).encode())
    except GraftError as error:
        found = (error.code, "expected" in error.detail)
    else:
        found = ("read", spec.load(spec.dump(read)) == read)
    assert found in {(code, True) for code in ("bundle_invalid", "bundle_too_new", "unsupported_task", "read")}


def changed(**fields):
    document = json.loads(spec.dump(make_spec()))
    document.update(fields)
    return json.dumps(document).encode()


def test_a_newer_version_is_named_with_the_way_out():
    with pytest.raises(spec.BundleError, match=r"spec_version up to 3; found 4.*newer Graft; upgrade") as caught:
        spec.load(changed(spec_version=4, an_unknown_field="of the future"))
    assert caught.value.code == "bundle_too_new"


def test_newer_preprocessing_is_refused():
    document = json.loads(spec.dump(make_spec()))
    document["inputs"][0]["preprocessing"]["version"] = 99
    with pytest.raises(spec.BundleError, match="preprocessing version up to 1; found 99") as caught:
        spec.load(json.dumps(document).encode())
    assert caught.value.code == "bundle_too_new"


@pytest.mark.parametrize("task", ["detection", "text_classification", "audio_tagging"])
def test_a_reserved_task_is_unsupported(task):
    with pytest.raises(BadRequest, match=task) as caught:
        spec.load(changed(task=task))
    assert caught.value.code == "unsupported_task"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"not json", "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b"[]", "spec_version"),
        (b"{}", "spec_version"),
        (changed(spec_version="1"), "spec_version"),
        (changed(spec_version=True), "spec_version"),
        (changed(spec_version=0), "spec_version"),
        (changed(surprise=1), "surprise"),
        (changed(task="juggling"), "task"),
        (changed(temperature=0), "temperature"),
        (changed(labels=["cat", "cat", "owl"]), "distinct labels"),
        (changed(labels=["cat", "dog"]), "probabilities"),
        (changed(created_at="2026-01-01T00:00:00"), "timezone"),
        (changed(files={"../evil": {"sha256": "0" * 64, "size_bytes": 1}}), "files"),
        (changed(files={"a": {"sha256": "0" * 63, "size_bytes": 1}}), "sha256"),
        (changed(metrics={"ece": "NaN"}), "metrics"),
    ],
)
def test_damage_is_described(data, words):
    with pytest.raises(spec.BundleError, match=words) as caught:
        spec.load(data)
    assert caught.value.code == "bundle_invalid"


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_unknown_fields_inside_are_refused(where):
    document = json.loads(spec.dump(make_spec()))
    document[where][0]["surprise"] = 1
    with pytest.raises(spec.BundleError, match="surprise"):
        spec.load(json.dumps(document).encode())


def test_unknown_fields_in_the_preprocessing_are_refused():
    document = json.loads(spec.dump(make_spec()))
    document["inputs"][0]["preprocessing"]["surprise"] = 1
    with pytest.raises(spec.BundleError, match="surprise"):
        spec.load(json.dumps(document).encode())


def test_an_input_has_the_shape_that_its_preprocessing_gives():
    with pytest.raises(ValidationError, match="expected shape"):
        spec.Input(name="images", modality="image", dtype="uint8", shape=(None, 9, 8, 3), preprocessing=preprocess(8))


def test_features_are_as_wide_as_the_backbone():
    with pytest.raises(ValidationError, match="'features' of width 6"):
        make_spec(outputs=spec.classification_outputs(3, 5))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_lacks_are_refused(value):
    with pytest.raises(ValidationError, match="finite"):
        make_spec(metrics={"ece": value})
    with pytest.raises(ValidationError, match="finite"):
        make_spec(parity=spec.Parity(value, 1, 1.0))


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        make_spec().seed = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_spec().parity.max_abs = 0.0


@pytest.mark.parametrize(
    ("max_abs", "expected"), [(0.0, True), (1e-4, True), (1.01e-4, False), (math.nan, False), (math.inf, False)]
)
def test_parity_is_within_tolerance(max_abs, expected):
    assert spec.Parity(max_abs, 1, 1e-4).ok is expected


@pytest.mark.parametrize(
    ("version", "second", "told"),
    [(1, (), "one graph"), (2, ("int8",), "int8"), (3, ("fp16",), "fp16"), (3, ("int8", "fp16"), "int8, fp16")],
)
def test_the_version_is_the_least_that_tells_of_its_graphs(version, second, told):
    found = make_spec(spec_version=version, **dict.fromkeys(second, MEASURED))
    assert spec.load(spec.dump(found)) == found
    # What is not there is not named, so that older readers take it.
    assert {"int8", "fp16"} & json.loads(spec.dump(found)).keys() == set(second)
    assert tuple(found.second) == second
    for other in {1, 2, 3} - {version}:
        with pytest.raises(ValidationError, match=f"expected spec_version {version} with {told}; found {other}"):
            make_spec(spec_version=other, **dict.fromkeys(second, MEASURED))
