"""Forecasts: what was expected of a job, and what it found.

Revision: 20261126_forecasts
Revises: 20261126_studies
"""

import sqlalchemy as sa
from alembic import op

revision = "20261126_forecasts"
down_revision = "20261126_studies"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "forecast",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("expected", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("found", sa.Double(), nullable=False),
        sa.Column("method", sa.String(length=40), nullable=False),
        sa.Column("num_images", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_forecast_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_forecast_project_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_forecast")),
    )
    op.create_index(op.f("ix_forecast_created_at"), "forecast", ["created_at"])
    op.add_column("project", sa.Column("num_forecasts", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("project") as batch:
        batch.drop_column("num_forecasts")
    op.drop_table("forecast")
