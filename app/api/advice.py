"""Advice on datasets: ask, read as JSON or as a page, apply as a child dataset, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from app.advice import AdviceRequest, ApplyRequest
from app.api import datasets, negotiation
from app.api.accepted import Accepted
from app.api.datasets import DatasetOut
from app.api.deps import WASTE, After, Context, Limit, Page, Project, ReadSession, WriteSession
from app.api.problems import RESPONSES
from app.api.studies import StudyOut
from app.db.studies import Advice
from app.pages import advice as pages
from app.services import advice, studies

router = APIRouter(tags=["advice"], responses=RESPONSES)
# Of a result, what a list shows: findings may be thousands.
LISTED_PARTS = ("backbone", "num_samples", "labels", "labels_reason", "counts", "not_searched")


class AdviceOut(StudyOut):
    """What may be wrong with a dataset. `result.findings` are listed with ids that stay; see docs/advice.md."""

    @classmethod
    def brief(cls, row: Advice) -> "AdviceOut":
        """The document of a row in a list: of its result only the counts."""
        out = cls.of(row)
        if out.result is not None:
            out.result = {name: out.result[name] for name in LISTED_PARTS}
        return out


@router.post("/datasets/{dataset_id}/advice", status_code=202, response_model=AdviceOut)
def create_advice(
    dataset_id: str, body: AdviceRequest, accept: Accepted, state: Context, session: WriteSession, project: Project
) -> Any:
    """Looks for wrong labels, outliers, copies, small and confused classes; with `against`, for drift."""

    def make() -> AdviceOut:
        return AdviceOut.of(advice.create(session, project, dataset_id, body, state.settings.offline))

    asked = {"dataset": dataset_id, **body.model_dump()}
    return accept.answer("POST /datasets/{id}/advice", asked, make, "/api/v1/advice/{id}")


@router.get("/advice", response_model=Page[AdviceOut])
def list_advice(
    session: ReadSession,
    project: Project,
    limit: Limit = 50,
    after: After = None,
    dataset: Annotated[str | None, Query(max_length=40, description="Only on this dataset.")] = None,
) -> Any:
    """Advice, newest first; of each result only the counts, all of it is at GET /advice/{id}."""
    rows, more = advice.page(session, project, limit, after, dataset)
    return Page(data=[AdviceOut.brief(row) for row in rows], has_more=more)


@router.get(
    "/advice/{advice_id}",
    response_model=AdviceOut,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def get_advice(advice_id: str, request: Request, state: Context, session: ReadSession, project: Project) -> Any:
    """The findings as JSON, or as a page with small pictures when a browser asks."""
    row = studies.get(session, Advice, project, advice_id)
    out = AdviceOut.of(row)
    if not negotiation.wants_page(request):
        return out
    return negotiation.page(pages.render(out.model_dump(mode="json"), advice.thumbnails(state.storage, row)))


@router.post("/advice/{advice_id}/apply", status_code=202, response_model=DatasetOut)
def apply_advice(advice_id: str, body: ApplyRequest, accept: Accepted, session: WriteSession, project: Project) -> Any:
    """Makes a child dataset with suggestions carried out; answers its document."""

    def make() -> DatasetOut:
        return datasets.document(advice.apply(session, project, advice_id, body))

    asked = {"advice": advice_id, **body.model_dump()}
    return accept.answer("POST /advice/{id}/apply", asked, make, "/api/v1/datasets/{id}")


@router.delete("/advice/{advice_id}", status_code=204)
def delete_advice(advice_id: str, session: WriteSession, project: Project) -> None:
    """Removes advice that no job works on, with its pictures; datasets made by it stay."""
    session.info.setdefault(WASTE, []).append(studies.delete(session, Advice, project, advice_id))
