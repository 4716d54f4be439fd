"""Many jobs that depend on each other, workers that come late, users who change their minds: the rows stay true."""

from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from app.db.base import now
from app.db.models import Job, JobDependency
from app.db.session import Database
from app.errors import Conflict
from app.services import attempts, job_requests, jobs, outcomes
from app.states import JobState
from tests import factories
from tests.app.services.test_jobs import check

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"])
MAX_ATTEMPTS = 2
LOST = ("failed", "cancelled")


class Jobs(RuleBasedStateMachine):
    """What services do with rows, beside what is remembered of who holds which job."""

    database: Database
    known = Bundle("known")
    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.held, self.made = count(1), dict[str, str](), list[str]()

    def states(self) -> dict[str, str]:
        with self.database.read() as session:
            return {row.id: row.state for row in session.scalars(select(Job).where(Job.id.in_(self.made)))}

    @rule(target=known, needed=st.lists(known, max_size=2, unique=True))
    def create(self, needed: list[str]) -> str:
        states = self.states()
        refused = any(states[one] in LOST for one in needed)
        try:
            with self.database.write() as session:
                made = factories.job(session, depends_on=tuple(needed)).id
        except Conflict:
            assert refused
            # Without what it needs it can be had.
            return self.create([])
        assert not refused
        self.made.append(made)
        return str(made)

    @rule(target=tokens)
    def claim(self) -> str:
        token = f"worker-{next(self.numbers)}"
        with self.database.write() as session:
            job = attempts.claim(session, ["cpu"], token, 60)
        states = self.states()
        if job is None:
            with self.database.read() as session:
                links = session.execute(select(JobDependency.job_id, JobDependency.depends_on_id)).all()
            unmet = {one for one, other in links if states.get(other) != "succeeded"}
            assert [one for one, state in states.items() if state == "queued" and one not in unmet] == []
        else:
            assert states[job.id] == "running"
            self.held[token] = job.id
        return token

    @rule(token=tokens)
    def speak(self, token: str) -> None:
        self.act(
            token, lambda session, job: attempts.record(session, job, token, [{"type": "log", "message": "a"}], None)
        )

    @rule(token=tokens)
    def renew(self, token: str) -> None:
        self.act(token, lambda session, job: attempts.renew(session, job, token, 60))

    @rule(token=tokens, how=st.sampled_from(["succeed", "fail", "lose", "yield"]))
    def end(self, token: str, how: str) -> None:
        def act(session: Any, job_id: str) -> None:
            if how == "fail":
                outcomes.fail(session, job_id, token, "diverged", "not finite")
                return
            job = attempts.owned(session, job_id, token)
            if how == "succeed":
                jobs.move(session, job, JobState.SUCCEEDED)
            else:
                attempts.hand_back(session, job, how, MAX_ATTEMPTS, counts=how == "lose")

        self.act(token, act)
        self.held.pop(token, None)

    def act(self, token: str, action: Any) -> None:
        """Whoever holds a job may act on it, and nobody else, whatever job it was that they once held."""
        job_id = self.held.get(token) or next(iter(self.made), "job_none")
        try:
            with self.database.write() as session:
                action(session, job_id)
            assert token in self.held
        except attempts.LeaseLost:
            assert token not in self.held

    @rule(token=tokens)
    def fall_silent(self, token: str) -> None:
        if token not in self.held:
            return
        with self.database.write() as session:
            session.get_one(Job, self.held[token]).lease_expires_at = now()
        with self.database.write() as session:
            lost = attempts.expired(session)
            assert [job.id for job in lost] == [self.held.pop(token)]
            for job in lost:
                attempts.hand_back(session, job, "fell silent", MAX_ATTEMPTS)

    @rule(job=known, wish=st.sampled_from([outcomes.cancel, job_requests.stop, job_requests.retry]))
    def wish(self, job: str, wish: Any) -> None:
        before = self.states()
        try:
            with self.database.write() as session:
                wish(session, "default", job)
        except Conflict:
            assert self.states() == before

    @invariant()
    def rows_are_true(self) -> None:
        with self.database.read() as session:
            rows = {row.id: row for row in session.scalars(select(Job).where(Job.id.in_(self.made)))}
            for row in rows.values():
                check(session, row)
            links = session.execute(select(JobDependency.job_id, JobDependency.depends_on_id)).all()
        assert {row.lease_owner: name for name, row in rows.items() if row.state == "running"} == self.held
        for one, other in links:
            if one in rows:
                assert rows[one].state != "running" or rows[other].state == "succeeded"
                assert rows[one].state != "queued" or rows[other].state not in LOST

    def teardown(self) -> None:
        """What is left would be claimed first by the next example."""
        with self.database.write() as session:
            for row in session.scalars(select(Job).where(Job.state.in_((JobState.QUEUED, JobState.RUNNING)))):
                row.lease_owner = row.lease_expires_at = None
                jobs.move(session, row, JobState.CANCELLED)


def test_whatever_happens_to_many_jobs(database: Database) -> None:
    Jobs.database = database
    run_state_machine_as_test(Jobs, settings=settings(max_examples=8, stateful_step_count=20, deadline=None))
