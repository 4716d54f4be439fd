"""Finished adaptations, as the page of one shows them."""

from app.services import adapted
from tests import factories


def test_only_scored_adaptations_of_the_project_that_have_succeeded(database):
    metrics = {"domain_distance": 1.5, "test_accuracy": 0.6, "source_only_accuracy": 0.5}
    adapt = {"recipe": {"method": "adapt", "source": "ds_x"}, "state": "succeeded", "metrics": metrics}
    with database.write() as session:
        first = factories.job(session, **adapt).id
        second = factories.job(session, **{**adapt, "metrics": {**metrics, "domain_distance": 0.0}}).id
        factories.job(session, **{**adapt, "metrics": {**metrics, "test_accuracy": None}})
        factories.job(session, **{**adapt, "metrics": {"test_accuracy": 0.6, "source_only_accuracy": 0.5}})
        factories.job(session, **{**adapt, "recipe": {"method": "linear_probe"}})
        factories.job(session, **{**adapt, "state": "running"})
    with database.read() as session:
        found = adapted.finished(session, "default")
        assert [(one["job_id"], one["distance"], round(one["gain"], 9)) for one in found] == [
            (first, 1.5, 0.1), (second, 0.0, 0.1)
        ]  # fmt: skip
        assert adapted.finished(session, "another") == []
