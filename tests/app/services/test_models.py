"""The registry reads of a version what is asked of it."""

import pytest
from sqlalchemy.exc import InvalidRequestError

from app.services import models
from tests import factories


def test_a_list_of_versions_has_no_specs(database):
    with database.write() as session:
        model = factories.model(session, "tiny", num_versions=2)
    with database.read() as session:
        rows = models.versions(session, [model.id])[model.id]
        assert [row.version for row in rows] == [2, 1]
        with pytest.raises(InvalidRequestError):
            rows[0].spec["labels"]
        # Whoever asks for the version itself has it, in the same session too.
        newest = models.newest(session, model.id)
        assert newest is rows[0]
        assert newest.spec["labels"]
        assert models.version(session, factories.PROJECT, "tiny", 1).spec["labels"]
