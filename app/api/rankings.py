"""Rankings: candidate backbones for a dataset, in order, with what each is expected to reach."""

from typing import Any

from fastapi import APIRouter

from app.api.accepted import Accepted
from app.api.deps import WASTE, After, Context, Limit, Page, Project, ReadSession, WriteSession
from app.api.problems import RESPONSES
from app.api.studies import StudyOut
from app.db.studies import Ranking
from app.rankings import RankingIn
from app.services import rankings, studies

router = APIRouter(prefix="/rankings", tags=["rankings"], responses=RESPONSES)


@router.post("", status_code=202, response_model=StudyOut)
def create_ranking(body: RankingIn, accept: Accepted, state: Context, session: WriteSession, project: Project) -> Any:
    """Puts backbones in order for a dataset; docs/ranking.md says how, and what the result holds."""

    def make() -> StudyOut:
        return StudyOut.of(rankings.create(session, project, body, state.settings.offline))

    return accept.answer("POST /rankings", body.model_dump(), make, "/api/v1/rankings/{id}")


@router.get("", response_model=Page[StudyOut])
def list_rankings(session: ReadSession, project: Project, limit: Limit = 50, after: After = None) -> Any:
    """Rankings, newest first."""
    rows, more = studies.page(session, Ranking, project, limit, after)
    return Page(data=[StudyOut.of(row) for row in rows], has_more=more)


@router.get("/{ranking_id}", response_model=StudyOut)
def get_ranking(ranking_id: str, session: ReadSession, project: Project) -> Any:
    """One ranking; `result` once it is ready."""
    return StudyOut.of(studies.get(session, Ranking, project, ranking_id))


@router.delete("/{ranking_id}", status_code=204)
def delete_ranking(ranking_id: str, session: WriteSession, project: Project) -> None:
    """Removes a ranking that no job works on; features stay in the cache."""
    session.info.setdefault(WASTE, []).append(studies.delete(session, Ranking, project, ranking_id))
