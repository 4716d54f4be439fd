"""The generated catalogue against the installed libraries: every name exists, and sampled rows are measured again."""

import random
from pathlib import Path

import open_clip
import pytest
import timm
import torchvision
from timm.models import list_pretrained

from app import backbones
from app.backbones import Backbone
from worker.backbones import weights
from worker.prepare import catalogue, measure

ROWS = {row.name: row for row in backbones.catalogue()}
CHEAP = [row for row in ROWS.values() if row.num_params < 12_000_000 and row.preprocess.height <= 256]
SAMPLE = random.Random(0).sample(CHEAP, 12)


def test_every_name_exists_in_its_library() -> None:
    pretrained = set(list_pretrained())
    tagged = {name.partition(".")[0] for name in pretrained}
    timm_names = {name.removeprefix("timm/") for name in ROWS if name.startswith("timm/")}
    assert {name for name in timm_names if "." not in name} <= tagged
    assert {name for name in timm_names if "." in name} <= pretrained
    pairs = {f"open_clip/{architecture}.{tag}" for architecture, tag in open_clip.list_pretrained()}
    assert {name for name in ROWS if name.startswith("open_clip/")} <= pairs
    known = set(torchvision.models.list_models(module=torchvision.models))
    listed = {row.architecture for row in ROWS.values() if row.provider == "torchvision"}
    assert listed == known


def test_no_pretrained_classifier_is_missing() -> None:
    listed = {row.architecture for row in ROWS.values() if row.provider == "timm"}
    missing = {name.partition(".")[0] for name in list_pretrained()} - listed
    assert all(name.endswith("_enc") for name in missing), missing


def test_only_text_towers_of_another_library_are_left_out_of_open_clip() -> None:
    for architecture, tag in open_clip.list_pretrained():
        needs_more = "hf_model_name" in open_clip.get_model_config(architecture)["text_cfg"]
        assert (f"open_clip/{architecture}.{tag}" in ROWS) is not needs_more


def test_a_row_of_open_clip_names_its_tag_input_and_licence() -> None:
    row = ROWS["open_clip/ViT-B-16-SigLIP.webli"]
    assert (row.architecture, row.tag, row.text_tower) == ("ViT-B-16-SigLIP", "webli", True)
    assert (row.preprocess.height, row.preprocess.mean) == (224, (0.5, 0.5, 0.5))
    assert (row.licence, row.paper, row.weights.location) == ("Apache-2.0", "2303.15343", "timm/ViT-B-16-SigLIP")
    row = ROWS["open_clip/ViT-B-32.laion2b_s34b_b79k"]
    assert row.licence == "not stated; see the card of laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert (row.paper, row.weights.file) == ("2212.07143", "open_clip_model.safetensors")


@pytest.mark.parametrize("row", SAMPLE, ids=[row.name for row in SAMPLE])
def test_sampled_rows_are_what_the_library_builds(row: Backbone) -> None:
    measured = measure.measure(row.name, row.architecture, row.preprocess)
    assert measured == (row.num_params, row.feature_dim, row.attention)


def test_preprocessing_is_the_weights_own() -> None:
    row = ROWS["torchvision/resnet18"]
    transform = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    assert (row.preprocess.height, row.preprocess.resize) == (transform.crop_size[0], transform.resize_size[0])
    assert list(row.preprocess.mean) == list(transform.mean)
    assert row.preprocess.interpolation == transform.interpolation.value
    resolved = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg("resnet50").to_dict())
    row = ROWS["timm/resnet50"]
    assert row.preprocess.resize == int(224 / resolved["crop_pct"])
    assert (row.preprocess.mean, row.preprocess.std) == (resolved["mean"], resolved["std"])


def test_every_row_is_usable() -> None:
    for row in ROWS.values():
        assert row.preprocess.interpolation in ("bilinear", "bicubic"), row.name
        assert row.feature_dim > 0, row.name
        assert row.num_params > 0, row.name
        assert row.licence, row.name
        assert row.weights.location, row.name


def test_starters_are_pinned_and_here(tmp_path_factory: pytest.TempPathFactory) -> None:
    starters = [row for row in ROWS.values() if row.weights.kind == "starter"]
    assert {row.name for row in starters} == set(catalogue.STARTERS)
    assert all(row.recommended and row.rank for row in starters)
    home = tmp_path_factory.mktemp("home")
    for row in starters:
        path = weights.locate(row, home)
        assert path is not None
        assert path.stat().st_size == row.weights.size_bytes
        assert weights.sha256_file(path) == row.weights.sha256
    assert sorted(weights.available(home)) == sorted(row.name for row in starters)


def test_a_download_is_available_wherever_it_may_be(tmp_path: Path) -> None:
    others = [row for row in ROWS.values() if row.weights.kind != "starter"]
    for number, row in enumerate(others):
        # Of a repository with two files, each in turn.
        *_, path = (weights.download_path(one, tmp_path) for one in list(weights.choices(row))[: 1 + number % 2])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert weights.locate(row, tmp_path) == path
    assert weights.available(tmp_path) == list(ROWS)
    path.unlink()
    path.with_suffix(".part").touch()
    assert weights.available(tmp_path) == list(ROWS)[:-1]


def test_the_file_is_what_the_generator_writes() -> None:
    text = backbones.CATALOGUE.read_text()
    # The first line names the libraries that wrote it; other versions may read it.
    rows = catalogue.document(list(reversed(ROWS.values()))).partition("\n")[2]
    assert rows == text.partition("\n")[2]
    assert text.count("\n") == len(ROWS) + 2
    first = list(ROWS.values())[: sum(row.recommended for row in ROWS.values())]
    assert all(row.recommended for row in first)
