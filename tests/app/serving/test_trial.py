"""A version says of its sample what it said when it was published, or it is not served."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from app.artifact import heads
from app.artifact.spec import BundleError
from app.errors import NotFound, NotReady, Unavailable
from app.serving.engine import Engine
from app.serving.model import Graph, Served
from app.serving.runtime import Session
from tests.app import sample_factories
from tests.app.onnx_factories import backbone_bytes, images, make_spec

SECONDS = 30
WEIGHT, BIAS = np.random.default_rng(5).normal(size=(3, 6)) * 4, np.zeros(3)


class Counted(Session):
    """A real session that counts its runs."""

    runs = 0

    def run(self, batch):
        Counted.runs += 1
        return super().run(batch)


def served(seed=0, off=0.0, read=None):
    """A version whose backbone is that of `seed`, where its sample was made with that of 0."""
    data, head = backbone_bytes(seed=seed), heads.linear(WEIGHT, BIAS)
    made = sample_factories.make(WEIGHT, BIAS, off=off)
    return Served(
        make_spec(),
        Graph(f"backbone {seed}", lambda threads: Counted(data, threads)),
        Graph(f"head {off}", lambda _: Session(head, threads=1)),
        sample=read or (lambda: made),
    )


@pytest.fixture
def engine():
    with closing(Engine(1 << 30, 2)) as made:
        yield made


def test_what_passes_answers_and_is_tried_once_on_each_session(engine):
    read = []
    made = sample_factories.make(WEIGHT, BIAS)
    model = served(read=lambda: read.append(1) or made)
    assert not engine.trials.passed(model)
    engine.load(model)
    assert engine.trials.passed(model)
    assert len(read) == 2
    Counted.runs = 0
    for num in (1, 5, 1):
        assert len(engine.submit(model, images(num)).result(SECONDS).features_ND) == num
    assert len(read) == 2
    assert Counted.runs >= 3


def test_a_first_call_tries_what_nobody_loaded(engine):
    assert len(engine.submit(served(), images(3)).result(SECONDS).features_ND) == 3
    with pytest.raises(NotReady, match=r"scores that are 0\.001 off"):
        engine.submit(served(off=0.001), images(3)).result(SECONDS)


def test_an_eviction_is_followed_by_another_trial():
    read = []
    made = sample_factories.make(WEIGHT, BIAS)
    with closing(Engine(0, 1)) as engine:
        model = served(read=lambda: read.append(1) or made)
        for _ in range(3):
            engine.submit(model, images(1)).result(SECONDS)
    assert len(read) == 3


@pytest.mark.parametrize(("model", "words"), [(served(seed=1), "off"), (served(off=1.1e-4), "0.00011")])
def test_another_graph_or_other_scores_are_refused_at_each_door(engine, model, words):
    with pytest.raises(NotReady, match=words):
        engine.load(model)
    with pytest.raises(NotReady, match="restore its files"):
        engine.submit(model, images(1)).result(SECONDS)
    assert words in engine.trials.failure(model)
    assert not engine.trials.passed(model)
    # Another head on the same backbone is served.
    assert len(engine.submit(served(), images(2)).result(SECONDS).features_ND) == 2


def test_a_smaller_difference_passes(engine):
    engine.load(served(off=5e-5))


def test_features_are_looked_at_where_scores_cannot_tell(engine):
    """A head so steep that both backbones get the same scores."""
    made = sample_factories.make(1e4 * WEIGHT, BIAS)
    head = heads.linear(1e4 * WEIGHT, BIAS)
    assert set(made.said.scores_KC.ravel()) == {0, 1}
    made.said.features_KD[:] *= 1.001
    model = replace(served(read=lambda: made), head=Graph("steep", lambda _: Session(head, threads=1)))
    with pytest.raises(NotReady, match=r"found features that are 0\.00\d+ and scores that are 0 off"):
        engine.load(model)


def test_a_graph_that_gives_no_numbers_is_refused(engine):
    made = sample_factories.make(WEIGHT, BIAS)
    made.said.scores_KC[0, 0] = np.nan
    with pytest.raises(NotReady, match="scores that are nan off"):
        engine.load(served(read=lambda: made))


def test_a_picture_that_cannot_be_decoded_here_is_a_failure_too(engine):
    made = replace(sample_factories.make(WEIGHT, BIAS), pictures=(b"RIFF....WEBP",) * 2)
    with pytest.raises(NotReady, match="cannot be decoded here"):
        engine.load(served(read=lambda: made))


def test_a_version_that_failed_is_ready_again_once_it_passes(engine):
    made = [sample_factories.make(WEIGHT, BIAS, off=0.1), sample_factories.make(WEIGHT, BIAS)]
    model = served(read=lambda: made.pop(0) if len(made) > 1 else made[0])
    with pytest.raises(NotReady):
        engine.load(model)
    engine.load(model)
    assert engine.trials.passed(model)
    assert engine.trials.failure(model) is None


def test_old_bundles_without_a_sample_are_loaded_with_zeros(engine):
    plain = Served(
        make_spec(),
        Graph("plain", lambda threads: Counted(backbone_bytes(), threads)),
        Graph("plain head", lambda _: Session(heads.linear(WEIGHT, BIAS), threads=1)),
    )
    Counted.runs = 0
    engine.load(plain)
    assert Counted.runs == 2
    assert engine.trials.passed(plain)


def broken(name, error=None):
    def load(_):
        raise error or BundleError("expected a graph that onnxruntime loads; found text; publish it again")

    return Graph(name, load)


@pytest.mark.parametrize("place", ["backbone", "head", "alignment"])
def test_a_graph_that_does_not_load_is_a_failed_trial(engine, place):
    model = replace(served(), **{place: broken(f"broken {place}")})
    with pytest.raises(NotReady, match="found text"):
        engine.submit(model, images(2)).result(SECONDS)
    assert "found text" in engine.trials.failure(model)
    with pytest.raises(NotReady, match="found text"):
        engine.load(model)
    assert not engine.trials.passed(model)
    # What shares its other graphs is served.
    assert len(engine.submit(served(), images(2)).result(SECONDS).features_ND) == 2
    assert engine.trials.failure(served()) is None


@pytest.mark.parametrize("damaged", ["backbone", "head", "sample"])
def test_a_version_whose_files_are_damaged_says_nothing_of_one_with_the_same_graphs(engine, damaged):
    def read():
        raise BundleError("expected a sample")

    whole = served()
    whole = replace(
        whole, **{name: replace(getattr(whole, name), place=f"one/{name}") for name in ("backbone", "head")}
    )
    other = {name: replace(getattr(whole, name), place=f"another/{name}") for name in ("backbone", "head")}
    if damaged != "sample":
        other[damaged] = replace(broken(getattr(whole, damaged).sha256), place=other[damaged].place)
    worse = replace(whole, **other, sample=read if damaged == "sample" else whole.sample)
    with pytest.raises(NotReady):
        engine.submit(worse, images(2)).result(SECONDS)
    assert engine.trials.failure(worse) is not None
    assert engine.trials.failure(whole) is None
    assert len(engine.submit(whole, images(2)).result(SECONDS).features_ND) == 2
    # In one batch too.
    both = [engine.submit(whole, images(40)), engine.submit(whole, images(2))]
    assert [len(one.result(SECONDS).features_ND) for one in both] == [40, 2]


def test_a_backbone_that_others_have_passed_on_keeps_its_copy(engine):
    forgotten = []
    good = served()
    shared = replace(good, backbone=replace(good.backbone, place="shared"))
    engine.load(shared)
    worse = replace(shared, head=replace(broken("bad"), place="own"), forget=forgotten.extend)
    with pytest.raises(NotReady):
        engine.load(worse)
    assert forgotten == ["own"]


def test_storage_that_is_away_is_no_failed_trial(engine):
    model = replace(served(), head=broken("away", Unavailable("expected storage; found none")))
    with pytest.raises(Unavailable, match="expected storage"):
        engine.submit(model, images(2)).result(SECONDS)
    assert engine.trials.failure(model) is None


@pytest.mark.parametrize("error", [NotFound("expected a sample"), BundleError("expected a sample")])
def test_a_sample_that_cannot_be_read_is_a_failed_trial(engine, error):
    def read():
        raise error

    with pytest.raises(NotReady, match="expected a sample"):
        engine.load(served(read=read))


def test_sessions_of_a_failed_trial_are_given_up_so_that_restored_files_are_read(engine):
    stored = [backbone_bytes(seed=1), backbone_bytes(), backbone_bytes()]
    good = served()
    damaged = replace(good, backbone=Graph("restored", lambda threads: Session(stored.pop(0), threads)))
    with pytest.raises(NotReady):
        engine.submit(damaged, images(2)).result(SECONDS)
    assert engine.pool.stats().num_entries == 0
    # Nothing is loaded for each call that comes then.
    with pytest.raises(NotReady):
        engine.submit(damaged, images(2))
    assert len(stored) == 2
    engine.load(damaged)
    assert len(engine.submit(damaged, images(2)).result(SECONDS).features_ND) == 2


def test_a_backbone_on_which_another_version_has_passed_stays(engine):
    engine.load(served())
    num_loads = engine.pool.stats().num_loads
    with pytest.raises(NotReady):
        engine.load(served(off=0.1))
    engine.load(served())
    # The head that failed, and no other graph.
    assert engine.pool.stats().num_loads == num_loads + 1
