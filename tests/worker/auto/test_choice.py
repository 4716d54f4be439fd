"""How `auto` compares candidates: item scores against slow references, choices, and predictions free of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from worker.auto.choice import Entry, choose
from worker.contract.candidate import Candidate, Selection
from worker.evaluate import judged
from worker.scores.objective import item_scores


def entry(name, predicted, cost=1.0, rows=None, fair=None, num_classes=3):
    """A candidate of which nothing but its predictions is known."""
    rows = np.arange(len(predicted)) if rows is None else rows
    found = Selection(rows, judged.one_hot(predicted, num_classes), f"of {name}")
    fields = dict.fromkeys(Candidate.__dataclass_fields__)
    return Entry(name, cost, Candidate(**{**fields, "name": name, "selection": found, "judged": fair}))


def data(labels_N):
    return SimpleNamespace(labels_N=labels_N, groups_N=np.arange(len(labels_N)), num_classes=3, seed=0)


def macro_f1(labels_N, predicted_N, classes):
    return f1_score(labels_N, predicted_N, labels=classes, average="macro", zero_division=0)


@pytest.mark.parametrize("seed", range(3))
def test_pseudo_values_of_macro_f1_agree_with_leaving_items_out_one_by_one(seed):
    chance = np.random.default_rng(seed)
    labels_N = chance.choice(4, 40, p=[0.7, 0.2, 0.06, 0.04])
    # Class 5 is said and never there; a class of one item vanishes when that item is left out.
    predicted_N = np.where(chance.random(40) < 0.6, labels_N, chance.choice([0, 1, 2, 3, 5], 40))
    classes = np.unique(labels_N)
    whole = macro_f1(labels_N, predicted_N, classes)
    rest = [macro_f1(np.delete(labels_N, i), np.delete(predicted_N, i), classes) for i in range(40)]
    pseudo_N = np.array([40 * whole - 39 * one for one in rest])
    found_N = item_scores(predicted_N, labels_N, "macro_f1")
    assert found_N == pytest.approx(pseudo_N - pseudo_N.mean() + whole)
    assert found_N.mean() == pytest.approx(whole)


def test_accuracy_is_right_or_wrong():
    assert item_scores(np.array([0, 1, 1]), np.array([0, 1, 2]), "accuracy").tolist() == [1.0, 1.0, 0.0]


def test_the_objective_decides_between_them():
    labels_N = np.repeat([0, 1, 2], [80, 10, 10])
    majority = np.zeros(100, np.int64)
    # Right on all of the rare ones at the price of a fifth of the common one, which is 0.84 against 0.80 of items.
    fair = np.where(labels_N == 0, np.where(np.arange(100) < 20, 1, 0), labels_N)
    greedy = np.where(labels_N == 0, 0, np.where(np.arange(100) % 5 == 0, labels_N, 0))
    entries = [entry("greedy", greedy), entry("fair", fair), entry("majority", majority)]
    assert choose(entries, data(labels_N), "accuracy").entry.step == "greedy"
    assert choose(entries, data(labels_N), "macro_f1").entry.step == "fair"


def test_equal_costs_go_to_the_better_and_others_to_the_cheaper():
    labels_N = np.arange(90) % 3
    good, better = (np.where(np.arange(90) < bad, (labels_N + 1) % 3, labels_N) for bad in (10, 9))
    task = data(labels_N)
    assert choose([entry("good", good), entry("better", better)], task, "accuracy").entry.step == "better"
    chosen = choose([entry("good", good), entry("better", better, cost=3.0)], task, "accuracy")
    assert chosen.entry.step == "good"
    assert [reason.chosen for reason in chosen.reasons] == [True, False]


def test_an_item_counts_by_its_mean_over_the_draws_of_the_folds():
    """Ahead in the first draw alone is luck; a training, which has one draw, says the same in all."""
    labels_N = np.arange(90) % 3

    def drawn(name, *mistakes):
        one = entry(name, labels_N)
        said = [judged.one_hot(np.where(np.arange(90) < bad, (labels_N + 1) % 3, labels_N), 3) for bad in mistakes]
        found = Selection(np.arange(90), said[0], f"of {name}", again=tuple(said[1:]))
        return replace(one, candidate=replace(one.candidate, selection=found))

    lucky, steady, single = drawn("lucky", 9, 15, 15), drawn("steady", 10, 10, 10), drawn("single", 12)
    chosen = choose([lucky, steady, single], data(labels_N), "accuracy")
    assert chosen.entry.step == "steady"
    assert [reason.mean for reason in chosen.reasons] == pytest.approx([1 - 13 / 90, 1 - 10 / 90, 1 - 12 / 90])
    # The next comparison is made over all draws as well.
    assert len(chosen.entry.candidate.judged.again) == 2


def test_they_are_compared_on_items_that_all_have_predicted_and_none_has_learned_from():
    labels_N = np.arange(90) % 3
    wrong_elsewhere = np.where(np.arange(90) < 30, labels_N, (labels_N + 1) % 3)
    few = entry("few", labels_N[:30], rows=np.arange(30))
    chosen = choose([entry("all", wrong_elsewhere), few], data(labels_N), "accuracy")
    assert chosen.reasons[0].mean == chosen.reasons[1].mean == 1.0
    assert chosen.entry.candidate.judged.rows.tolist() == list(range(30))


def test_what_was_judged_apart_from_its_own_choice_counts_instead_of_the_selection():
    labels_N = np.arange(60) % 3
    fair = Selection(np.arange(60), judged.one_hot((labels_N + 1) % 3, 3), "apart")
    flattered = entry("tuned", labels_N, fair=fair)
    chosen = choose([flattered, entry("plain", labels_N)], data(labels_N), "accuracy")
    assert chosen.entry.step == "plain"


def test_the_verdict_sees_no_luck_of_the_choice():
    """Twelve candidates that guess: the taken one looks good on what chose it, its judged predictions do not."""
    labels_N, looks, fair = np.arange(60) % 2, [], []
    for seed in range(30):
        chance = np.random.default_rng(seed)
        entries = [entry(str(place), chance.integers(0, 2, 60), num_classes=3) for place in range(12)]
        taken = choose(entries, data(labels_N), "accuracy").entry.candidate
        looks.append((taken.selection.logits.argmax(1) == labels_N).mean())
        fair.append((taken.judged.logits.argmax(1) == labels_N).mean())
    assert np.mean(looks) > 0.57
    assert np.mean(fair) == pytest.approx(0.5, abs=0.04)


def test_a_single_candidate_was_not_chosen():
    assert (
        choose([entry("only", np.zeros(9, np.int64))], data(np.arange(9) % 3), "accuracy").entry.candidate.judged
        is None
    )
