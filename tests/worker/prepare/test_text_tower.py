"""The text tower: its graph against torch, its tokens against open_clip's, its files against damage and absence."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from app import backbones as catalogue
from app.errors import JobFailure
from tests.worker import clip_factories
from tests.worker.clip_factories import model, tiny, weights_file
from worker.backbones import clip_text, networks, prepared
from worker.backbones.clip_text import ClipText, TokenRules
from worker.prepare import text_tower

TEXTS = [
    "a",
    "Birds",
    "  a photo of a\troad_sign, seen from FAR away!  ",
    "it's the driver's 2nd caf\u00e9 &amp;amp; na\u00efve \u65e5\u672c\u8a9e \U0001f600 \u00e2\u20ac\u2122",
    "<end_of_text> is a word too",
    "",
    "one two three " * 60,
]


def silent(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipText:
    """The text tower of the tiny CLIP, from a weights file, prepared as a job would."""
    clip_factories.register()
    home = tmp_path_factory.mktemp("home")
    place = home / "weights" / "open_clip" / "graft-tiny-clip.random.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(weights_file().read_bytes())
    return text_tower.prepare(tiny(), home / "backbones", home, True, silent)


def wanted(texts: list[str]) -> np.ndarray:
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("graft-tiny-clip")(texts)
        return model().encode_text(tokens, normalize=True).numpy()


def test_the_graph_encodes_as_open_clip_does(clip: ClipText) -> None:
    together = clip.encode(TEXTS)
    np.testing.assert_allclose(together, wanted(TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.concatenate([clip.encode([text]) for text in TEXTS]), together, atol=1e-6)
    assert np.ptp(together, axis=0).max() > 0.1  # texts do differ


def test_tokens_are_open_clips_own(clip: ClipText) -> None:
    tokenizer = clip_text.open_tokenizer(clip.folder / "tokenizer.json")
    rules = TokenRules(**clip.record["tokens"])
    got = clip_text.tokenise(tokenizer, rules, TEXTS)
    assert np.array_equal(got, open_clip.get_tokenizer("ViT-B-32")(TEXTS).numpy())


@pytest.mark.parametrize("how", ["lower", "whitespace", "canonicalize"])
def test_texts_are_cleaned_as_open_clip_does(how: str) -> None:
    theirs = open_clip.tokenizer.get_clean_fn(how)
    wanted = [theirs(theirs(text)) if how == "lower" else theirs(text) for text in TEXTS]
    assert [clip_text.CLEANERS[how](text) for text in TEXTS] == wanted


def test_a_class_is_the_mean_of_its_prompts(clip: ClipText) -> None:
    assert clip_text.prompts("road_sign", "")[0] == "a photo of a road sign."
    assert clip_text.prompts("road_sign", "beside a street")[0] == "a photo of a road sign: beside a street"
    got = clip.classes(["road_sign", "bird"], ["beside a street", ""])
    for row, texts in enumerate((clip_text.prompts("road_sign", "beside a street"), clip_text.prompts("bird", ""))):
        mean = wanted(texts).mean(0)
        np.testing.assert_allclose(got[row], mean / np.linalg.norm(mean), atol=1e-5)


def test_the_record_says_what_it_is_and_a_second_preparation_only_reads(clip: ClipText) -> None:
    assert clip.document() == {
        "name": "text/open_clip/graft-tiny-clip.random", "digest": clip.folder.name, "licence": "MIT", "dim": 32,
    }  # fmt: skip
    assert clip.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert prepared.intact(clip.folder)
    root = clip.folder.parent
    assert text_tower.prepare(tiny(), root, Path("nowhere"), True, silent).digest == clip.digest


def test_without_weights_it_names_what_can_be_had(tmp_path: Path) -> None:
    clip_factories.register()
    with pytest.raises(
        JobFailure, match=r"open_clip/graft-tiny-clip\.random could not be had.*available here"
    ) as caught:
        text_tower.prepare(tiny(), tmp_path / "backbones", tmp_path, True, silent)
    assert caught.value.code == "weights_unavailable"


def test_without_its_tokenizer_a_siglip_is_refused_by_the_files_name(tmp_path: Path) -> None:
    siglip = catalogue.find("open_clip/ViT-B-16-SigLIP.webli")
    assert siglip is not None
    with pytest.raises(JobFailure, match=r"tokenizer\.json of timm/ViT-B-16-SigLIP: downloads are off") as caught:
        text_tower.prepare(siglip, tmp_path / "backbones", tmp_path, True, silent)
    assert caught.value.code == "weights_unavailable"
    assert not (tmp_path / "backbones").exists()


def hub_files(folder: Path, **settings: object) -> Path:
    """A tokenizer as SigLIP's repositories hold one: words, and an end that the file itself adds."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "photo": 4, "of": 5, "bird": 6}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def rows(folder: Path, options: dict, texts: list[str], length: int = 6) -> list[list[int]]:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    content, rules = text_tower.hub_tokenizer(folder / "tokenizer.json", settings, options, length)
    return clip_text.tokenise(Tokenizer.from_str(content), rules, texts).tolist()


def test_a_tokenizer_of_the_hub_keeps_its_own_ends_and_is_padded_as_it_says(tmp_path: Path) -> None:
    texts = ["A photo, of a bird!", "bird", "a a a a a a a"]
    folder = hub_files(tmp_path, pad_token={"content": "</s>"})
    canonical = {"clean": "canonicalize"}
    assert rows(folder, canonical, texts) == [[3, 4, 5, 3, 6, 1], [6, 1, 1, 1, 1, 1], [3, 3, 3, 3, 3, 1]]
    assert rows(folder, {}, texts[:1], 9) == [[3, 4, 2, 5, 3, 6, 2, 1, 1]]
    folder = hub_files(tmp_path, padding_side="left")
    assert rows(folder, canonical, ["bird"]) == [[0, 0, 0, 0, 6, 1]]


def test_a_separator_that_the_model_never_saw_becomes_zero(tmp_path: Path) -> None:
    folder = hub_files(tmp_path, pad_token="</s>", sep_token="of")
    assert rows(folder, {}, ["a photo of a"]) == [[3, 4, 5, 3, 1, 1]]
    assert rows(folder, {"strip_sep_token": True}, ["a photo of a"]) == [[3, 4, 0, 3, 1, 1]]


def test_files_that_do_not_say_what_to_pad_with_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(file))
    with pytest.raises(JobFailure, match="expected a pad_token") as caught:
        text_tower.hub_tokenizer(file, {}, {}, 4)
    assert caught.value.code == "weights_unavailable"


def test_a_siglip_runs_with_the_tokenizer_of_its_repository(tmp_path: Path) -> None:
    clip_factories.register()
    name = "graft-tiny-siglip"
    folder = hub_files(tmp_path, pad_token="</s>")
    content, rules = text_tower.tokenizer_of(
        {"hf_tokenizer_name": "graft/tiny", "context_length": 16, "tokenizer_kwargs": {"clean": "canonicalize"}},
        lambda repository, file: {"graft/tiny": folder}[repository] / file,
    )
    loaded = networks.build(tiny(name), weights_file(name))
    tower = text_tower.write(loaded, tiny(name), content, rules, tmp_path / "backbones", silent)
    texts = ["a bird", "a photo of a bird, of a bird", "bird"]
    tokens = clip_text.tokenise(Tokenizer.from_str(content), rules, texts)
    with torch.no_grad():
        theirs = model(name).encode_text(torch.from_numpy(tokens), normalize=True).numpy()
    np.testing.assert_allclose(tower.encode(texts), theirs, atol=1e-5)
    assert tower.logit_scale == pytest.approx(model(name).logit_scale.detach().exp().item())


@pytest.mark.parametrize("name", list(clip_factories.CONFIGS))
def test_the_image_tower_is_open_clips_own(name: str) -> None:
    clip_factories.register()
    features = networks.feature_module(networks.build(tiny(name), weights_file(name)), "open_clip").eval()
    shape = tiny(name).preprocess
    images = torch.randn(2, 3, shape.height, shape.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(features(images), model(name).encode_image(images))
