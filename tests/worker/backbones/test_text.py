"""The prepared text encoder against values of another implementation, and how classes become vectors."""

import numpy as np
import pytest

from app.errors import JobFailure
from app.settings import Settings
from worker.backbones import text

# transformers 5.23.0: BertModel and AutoTokenizer of the package's folder, attention-masked mean of the last hidden
# state, normalised; numbers 0, 1, 2, 100 and 383 of each vector, rounded to six digits.
REFERENCE = {
    "birds": [0.025201, 0.038465, 0.010574, 0.009909, 0.058859],
    "a photo of a Great White Shark": [-0.060119, 0.104686, 0.001086, -0.015692, 0.067846],
    "roadsigns: a sign beside a street": [0.010412, 0.043686, 0.014691, -0.043234, 0.011242],
}


@pytest.fixture(scope="module")
def encoder() -> text.TextEncoder:
    return text.find([Settings().prepared])


def test_vectors_are_those_of_the_original(encoder) -> None:
    found = encoder.encode(list(REFERENCE))
    np.testing.assert_allclose(found[:, [0, 1, 2, 100, 383]], list(REFERENCE.values()), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_text_has_the_same_vector_alone_and_beside_longer_ones(encoder) -> None:
    many = [*REFERENCE, *(f"number {number}, and so on" for number in range(80))]
    np.testing.assert_allclose(encoder.encode(many)[:1], encoder.encode(["birds"]), atol=1e-6)


def test_a_long_text_is_cut_and_not_padded_to_a_fixed_length(encoder) -> None:
    tokens, mask = text.tokenise(text.open_tokenizer(encoder.folder / text.TOKENIZER), ["bird", "word " * 1000])
    assert tokens.shape == mask.shape == (2, text.MAX_TOKENS)
    assert mask.sum(1).tolist() == [3, text.MAX_TOKENS]
    short, _ = text.tokenise(text.open_tokenizer(encoder.folder / text.TOKENIZER), ["bird"])
    assert short.shape == (1, 3)


def test_a_class_is_its_name_and_its_description(encoder) -> None:
    found = encoder.classes(["road_signs", "birds"], ["", "they fly"])
    plain, name, longer = encoder.encode(["road signs", "birds", "birds: they fly"])
    np.testing.assert_allclose(found[0], plain, atol=1e-6)
    np.testing.assert_allclose(found[1], (name + longer) / np.linalg.norm(name + longer), atol=1e-6)


def test_the_classes_of_the_pretraining_are_there(encoder) -> None:
    labels = encoder.labels
    assert len(labels.names) == len(labels.descriptions) == len(labels.vectors_KE) == 1000
    assert len(labels.lemmas) == len(labels.lemmas_ME)
    assert (labels.names[0], labels.lemmas[1]) == ("tench, Tinca tinca", (0, "Tinca tinca"))
    assert labels.descriptions[7] == "adult male bird"
    np.testing.assert_allclose(labels.vectors_KE[7:8], encoder.classes(["cock"], ["adult male bird"]), atol=1e-6)


def test_an_encoder_that_is_not_prepared_is_a_failure_that_says_so(tmp_path) -> None:
    with pytest.raises(JobFailure, match="make setup") as caught:
        text.find([tmp_path])
    assert caught.value.code == "weights_unavailable"
