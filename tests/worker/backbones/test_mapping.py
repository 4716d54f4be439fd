import json

import pytest
import timm
import torch
from timm.models import EfficientNet

from worker.backbones import mapping, transplant
from worker.backbones.mapping import TensorSpec, lite_names, match


def specs(**shapes: tuple[int, ...]) -> list[TensorSpec]:
    return [TensorSpec(name.replace("__", "."), shape) for name, shape in shapes.items()]


def statuses(report: mapping.Mapping) -> dict[str | None, str]:
    return {entry.target or entry.source: entry.status for entry in report.entries}


def test_equal_manifests_map_one_to_one() -> None:
    manifest = specs(a__weight=(2, 3), a__bias=(2,))
    report = match(manifest, manifest)
    assert report.counts == {"mapped": 2, "renamed": 0, "resized": 0, "skipped": 0, "new": 0}
    assert report.share == 1.0
    assert report.pairs() == {"a.weight": "a.weight", "a.bias": "a.bias"}


@pytest.mark.parametrize("wrap", ["module.", "model.", "backbone.", "state_dict.model.module.", "_orig_mod."])
def test_a_wrapper_around_every_name_is_taken_off(wrap: str) -> None:
    target = specs(a__weight=(2, 3), a__bias=(2,))
    source = [TensorSpec(wrap + spec.name, spec.shape) for spec in target]
    report = match(source, target)
    assert report.counts["renamed"] == 2
    assert report.share == 1.0


def test_a_wrapper_around_the_backbone_alone_is_taken_off() -> None:
    target = specs(a__weight=(2, 3))
    report = match(specs(backbone__a__weight=(2, 3), head__weight=(5, 2)), target)
    assert statuses(report) == {"a.weight": "renamed", "head.weight": "skipped"}


def test_a_part_of_the_architecture_is_no_wrapper() -> None:
    manifest = specs(encoder__a=(2, 3), encoder__b=(2,))
    assert match(manifest, manifest).counts["mapped"] == 2


def test_other_shapes_are_not_forced() -> None:
    report = match(specs(a=(2, 3), head=(10, 4)), specs(a=(2, 3), head=(5, 4)))
    assert statuses(report)["a"] == "mapped"
    entries = [(entry.status, entry.source, entry.target) for entry in report.entries]
    assert ("new", None, "head") in entries
    assert ("skipped", "head", None) in entries
    assert report.share == pytest.approx(6 / 26)


def test_equal_sequences_of_shapes_map_by_place_and_say_so() -> None:
    report = match(specs(x=(2, 3), y=(2,)), specs(a=(2, 3), b=(2,)))
    assert report.pairs() == {"a": "x", "b": "y"}
    assert {entry.reason for entry in report.entries} == {"same place in an equal sequence of shapes"}


def test_unequal_sequences_do_not_map_by_place() -> None:
    report = match(specs(x=(2, 3), y=(3,)), specs(a=(2, 3), b=(2,)))
    assert report.share == 0.0
    assert report.counts["new"] == report.counts["skipped"] == 2


def test_document_is_json_and_lists_every_tensor() -> None:
    document = json.loads(json.dumps(match(specs(a=(2,), c=(1,)), specs(a=(2,), b=(3,))).to_document()))
    assert document["counts"] == {"mapped": 1, "renamed": 0, "resized": 0, "skipped": 1, "new": 1}
    assert document["share"] == 0.4
    assert [tensor["target"] for tensor in document["tensors"]] == ["a", "b", None]


def test_lite_table_covers_timm_exactly() -> None:
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    assert isinstance(network, EfficientNet)
    target = list(network.state_dict())
    inverse_outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    source, wanted, index = [], {}, -1
    for name in target:
        parts = name.split(".")
        if parts[0] != "blocks":
            old = ".".join([inverse_outer.get(parts[0], "_fc"), *parts[1:]])
        else:
            if parts[3:] == ["conv_dw" if parts[1:3] == ["0", "0"] else "conv_pw", "weight"]:
                index += 1
            layer = {
                "conv_dw": "_depthwise_conv",
                "conv_pw": "_project_conv" if index == 0 else "_expand_conv",
                "conv_pwl": "_project_conv",
                "bn1": "_bn1" if index == 0 else "_bn0",
                "bn2": "_bn2" if index == 0 else "_bn1",
                "bn3": "_bn2",
            }[parts[3]]
            old = ".".join(["_blocks", str(index), layer, *parts[4:]])
        source.append(old)
        wanted[old] = name
    assert lite_names(source, target) == wanted
    assert len(set(wanted)) == len(target) == 296


def test_resized_tensors_are_carried_over() -> None:
    grey, colour = TensorSpec("stem.weight", (4, 1, 3, 3)), TensorSpec("stem.weight", (4, 3, 3, 3))
    report = match([colour], [grey])
    assert statuses(report) == {"stem.weight": "resized"}
    source = {"stem.weight": torch.randn(4, 3, 3, 3)}
    filled = transplant.apply(report, source, {"stem.weight": torch.zeros(4, 1, 3, 3)})
    image = torch.rand(1, 1, 8, 8)
    wanted = torch.nn.functional.conv2d(image.expand(-1, 3, -1, -1), source["stem.weight"])
    got = torch.nn.functional.conv2d(image, filled["stem.weight"])
    torch.testing.assert_close(got, wanted)
    back = transplant.resize(filled["stem.weight"], source["stem.weight"])
    torch.testing.assert_close(torch.nn.functional.conv2d(image.expand(-1, 3, -1, -1), back), wanted)


def test_positions_are_interpolated_as_timm_does() -> None:
    from timm.layers import resample_abs_pos_embed

    value = torch.randn(1, 1 + 14 * 14, 8)
    place = torch.zeros(1, 1 + 8 * 8, 8)
    assert mapping.resizable(TensorSpec("pos_embed", (1, 197, 8)), TensorSpec("pos_embed", (1, 65, 8)))
    wanted = resample_abs_pos_embed(value, new_size=[8, 8], num_prefix_tokens=1)
    torch.testing.assert_close(transplant.resize(value, place), wanted)


def test_new_tensors_keep_the_targets_values() -> None:
    target = {"a": torch.zeros(2), "b": torch.full((3,), 7.0)}
    source = {"a": torch.ones(2, dtype=torch.float16)}
    report = match(transplant.manifest(source), transplant.manifest(target))
    filled = transplant.apply(report, source, target)
    assert filled["a"].tolist() == [1.0, 1.0]
    assert filled["a"].dtype == torch.float32
    assert filled["b"].tolist() == [7.0] * 3
