"""Names of the pretraining's classes: what has the very name, what is guessed, and that guesses are no nonsense."""

import pytest

from app.settings import Settings
from worker.backbones import exposure, text, umbrellas


@pytest.fixture(scope="module")
def known() -> exposure.Known:
    return exposure.Known(text.find([Settings().prepared]).words[0])


def rows(known, *names):
    return {row["name"]: row for row in exposure.named(names, known)}


@pytest.mark.parametrize("name", ["family", "meal", "person", "person_role", "menu_item", "region", "breed"])
def test_a_word_of_a_definition_is_no_match(known, name):
    found = rows(known, name)
    # "menu" is a class of its own, and a whole part of this name.
    assert [row["by"] for row in found.values()] == (["part"] if name == "menu_item" else [])


def test_flowers_are_no_cauliflower(known):
    assert rows(known, "flowers")["flowers"] == {
        "name": "flowers", "pretraining_class": "daisy", "by": "includes", "num_pretraining_classes": 2
    }  # fmt: skip


def test_a_part_is_a_whole_word_of_a_synonym(known):
    found = rows(known, "terrier", "errier", "animal_mammal", "animal_mam", "place_building")
    assert {name: row["by"] for name, row in found.items()} == dict.fromkeys(
        ("terrier", "animal_mammal", "place_building"), "part"
    ) | {"animal_mam": "part"}
    # The last word of a path says most.
    assert found["animal_mammal"]["num_pretraining_classes"] == 218
    assert found["animal_mam"]["num_pretraining_classes"] == 398


# Of what WordNet's tree has, by the label set's order: the first and the last class of the group.
@pytest.mark.parametrize(
    ("word", "num", "first", "last"),
    [("animal", 398, "tench", "puffer"), ("bird", 59, "cock", "albatross"), ("mammal", 218, "tusker", "giant panda"),
     ("dog", 118, "Chihuahua", "Mexican hairless"), ("cat", 5, "tabby", "Egyptian cat"),
     ("fish", 16, "tench", "puffer"), ("snake", 17, "thunder snake", "sidewinder"),
     ("lizard", 11, "banded gecko", "Komodo dragon"), ("turtle", 5, "loggerhead", "box turtle"),
     ("insect", 27, "tiger beetle", "lycaenid"), ("butterfly", 6, "admiral", "lycaenid"),
     ("beetle", 8, "tiger beetle", "weevil"), ("spider", 6, "black and gold garden spider", "wolf spider"),
     ("primate", 20, "orangutan", "indri"), ("frog", 3, "bullfrog", "tailed frog"),
     ("fruit", 10, "Granny Smith", "pomegranate"), ("fungus", 7, "coral fungus", "bolete")],
)  # fmt: skip
def test_groups_end_where_the_tree_ends_them(known, word, num, first, last):
    classes = [known.names[number].partition(",")[0] for number in umbrellas.numbers(word)]
    assert (len(classes), classes[0], classes[-1]) == (num, first, last)


@pytest.mark.parametrize(
    ("word", "some"),
    [("vehicle", {"ambulance", "school bus", "yawl", "trolleybus", "tank"}), ("tool", {"hammer", "screwdriver"}),
     ("truck", {"fire engine", "trailer truck"}), ("bus", {"school bus", "trolleybus", "minibus"}),
     ("boat", {"canoe", "speedboat"}), ("aircraft", {"airliner", "warplane"}), ("car", {"sports car", "jeep"}),
     ("building", {"church", "palace", "barn"}), ("furniture", {"desk", "wardrobe", "throne"}),
     ("musical instrument", {"violin", "upright", "oboe"}), ("clothing", {"sock", "kimono"}),
     ("food", {"pizza", "banana", "broccoli"})],
)  # fmt: skip
def test_groups_scattered_over_the_alphabet(known, word, some):
    classes = [known.names[number].partition(",")[0] for number in umbrellas.numbers(word)]
    assert some <= set(classes)
    assert len(classes) < 100
