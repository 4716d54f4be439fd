"""The forecast's own error: what was expected of each job and what it found, kept, and summed up for operators."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from app.db.forecasts import ForecastRow
from app.db.models import Job, Project

# Finished jobs that the error is told of: recent ones, and never so many that asking takes long.
WINDOW = 1000
# Bounds and accuracies are shares of the same few images: rounding must not put one outside.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Errors:
    """How far forecasts were off.

    Args:
        num_total: forecasts ever recorded.
        num_recent: that the means are of.
        absolute: mean absolute error; None without a forecast.
        bias: mean of found - expected.
        inside: share of found accuracies inside their interval.
    """

    num_total: int
    num_recent: int
    absolute: float | None
    bias: float | None
    inside: float | None


def record(session: Session, job: Job, report: dict[str, Any]) -> None:
    """Keeps the report's forecast, if it has one, in the transaction that ends the job."""
    told = report.get("forecast")
    if told is None:
        return
    session.add(
        ForecastRow(
            job_id=job.id,
            project_id=job.project_id,
            **{name: told[name] for name in ("expected", "low", "high", "found", "method", "num_images")},
        )
    )
    # A running number, since counting a million rows takes time that grows with them.
    counted = update(Project).where(Project.id == job.project_id)
    session.execute(counted.values(num_forecasts=Project.num_forecasts + 1))


def errors(session: Session, project: str | None = None) -> Errors:
    """Over the last WINDOW finished jobs of one project or of all; what it costs does not grow with their number."""
    last = select(ForecastRow).order_by(ForecastRow.created_at.desc()).limit(WINDOW)
    counted = select(func.sum(Project.num_forecasts))
    if project is not None:
        last, counted = last.where(ForecastRow.project_id == project), counted.where(Project.id == project)
    recent = last.subquery()
    error = recent.c.found - recent.c.expected
    held = (recent.c.found >= recent.c.low - _ROUNDING) & (recent.c.found <= recent.c.high + _ROUNDING)
    inside = case((held, 1.0), else_=0.0)
    number, absolute, bias, share = session.execute(
        select(func.count(), func.avg(func.abs(error)), func.avg(error), func.avg(inside)).select_from(recent)
    ).one()
    total = session.scalar(counted) or 0
    return Errors(int(total), number, absolute, bias, None if share is None else float(share))
