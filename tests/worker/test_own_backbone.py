"""An own checkpoint that does not fill its network: what nobody has trained is told as new, in the report too."""

import timm
import torch
from safetensors.torch import save_file

from tests import factories
from tests.worker.study_factories import Lab

STEM = "conv1.0.weight"


def test_what_a_checkpoint_has_no_value_for_is_new_in_the_report(tmp_path):
    lab = Lab(tmp_path)
    lab.store("ds_1", factories.pictures(12))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = timm.create_model("test_resnet", num_classes=0)
    state = network.state_dict()
    stem = state.pop(STEM)
    save_file(state, tmp_path / "half.safetensors")
    lab.storage.put("incoming/default/up_1", tmp_path / "half.safetensors")
    inputs = {
        "backbone_id": "bb_1",
        "name": "user/half",
        "architecture": "timm/test_resnet",
        "file": "incoming/default/up_1",
    }
    made = lab.run("backbone", inputs=inputs)
    assert made["failure"] is None
    assert made["mapping"]["counts"]["new"] == 1
    lab.own.append(made["document"])
    found = lab.transfer("ds_1", backbone="user/half")["report"]["mapping"]
    num_params = sum(value.numel() for value in network.parameters())
    shapes = {row["name"]: torch.Size(row["shape"]) for row in found["tensors"]}
    num_head = sum(shapes[name].numel() for name in ("head.weight", "head.bias"))
    assert found["parameters"] == num_params
    assert found["mapped"] == found["frozen"] == num_params - stem.numel()
    assert {row["name"]: row["what"] for row in found["tensors"]}[STEM] == "new"
    assert found["new"] == num_head + stem.numel()
