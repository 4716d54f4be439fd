"""Requests for jobs, and rows of them, that tests of several routes make."""

from sqlalchemy import func, select

from app.db.models import Job
from app.states import JobState
from tests import factories

URL = "/api/v1/jobs"
BACKBONE = "timm/tf_efficientnet_lite0"
STATES = [str(state) for state in JobState]
CLIP = {"backbone": "open_clip/ViT-B-32.openai"}


def body(dataset_id, **overrides):
    recipe = {"method": "linear_probe"}
    return {"dataset": dataset_id, "backbone": BACKBONE, "recipe": recipe, "model": "colours", **overrides}


def num_jobs(database):
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Job))


def make_job(database, **fields):
    with database.write() as session:
        return factories.job(session, **fields).id


def told(*classes, **fields):
    """A job that tells its classes: names, or whole classes."""
    classes = [{"name": one} if isinstance(one, str) else one for one in classes]
    return {"recipe": {"method": "zero_shot", "classes": classes, **fields}}
