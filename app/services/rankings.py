"""Rankings: which backbones promise most for a dataset. Everything that can be refused is refused here."""

from sqlalchemy.orm import Session

from app.db.models import Dataset
from app.db.studies import Ranking
from app.errors import BadRequest
from app.rankings import RankingIn
from app.services import backbones, datasets, jobs, studies


def create(session: Session, project: str, wish: RankingIn, offline: bool) -> Ranking:
    """Checks what is asked for, and makes the ranking and its job.

    Raises:
        NotFound: the dataset or a backbone is not there.
        Conflict: the dataset is not ready.
        BadRequest: a dataset of another task or without labels, weights that cannot be had.
    """
    for name in wish.names:
        # `check_usable` lets `auto` pass, which is no name of a backbone.
        backbones.find(session, project, name)
        backbones.check_usable(session, project, name, offline)
    jobs.keep_dataset(session, wish.dataset)
    _check_dataset(datasets.ready(session, project, wish.dataset))
    request = wish.model_dump(mode="json")
    job = jobs.NewJob(kind="rank", dataset_id=wish.dataset, seed=wish.seed, inputs={"request": request})
    return studies.create(session, Ranking, project, request, job)


def _check_dataset(dataset: Dataset) -> None:
    """Refuses what has no classes to tell apart.

    Raises:
        BadRequest: code unsupported_task or labels_missing.
    """
    if dataset.task != "classification":
        raise BadRequest(
            f"expected a dataset of task classification for a ranking; found {dataset.task}; upload it with another "
            "task",
            code="unsupported_task",
        )
    if not dataset.classes:
        raise BadRequest(
            f"expected a labelled dataset for a ranking; found {dataset.id} without labels; upload it with class "
            "folders or a manifest with labels",
            code="labels_missing",
        )
