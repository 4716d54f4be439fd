"""Aliases as rows: two transactions at once."""

import pytest

from app.errors import Conflict
from app.services import aliases
from app.services.aliases import Target
from tests import factories

WHERE = ("default", "colours", "production")


def test_an_alias_that_is_moved_meanwhile_is_not_rolled_back(database, second):
    with database.write() as session:
        factories.model(session, "colours", 3)
    for number in (1, 2):
        with database.write() as session:
            aliases.point(session, *WHERE, Target(number))
    with database.write() as session:
        aliases.point(session, *WHERE, Target(3))
        back = second(lambda other: aliases.roll_back(other, *WHERE, Target(1)))
    with pytest.raises(Conflict, match="another one has moved it"):
        back.result()
    with database.read() as session:
        assert [row.version for row in aliases.history(session, *WHERE, 10)[0]] == [3, 2, 1]
