"""Datasets that a job uses beside the one it works on.

Revision: 20261123_job_datasets
Revises: 20261123_first_tables
"""

import sqlalchemy as sa
from alembic import op

revision = "20261123_job_datasets"
down_revision = "20261123_first_tables"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_dataset",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name=op.f("fk_job_dataset_dataset_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_dataset_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_job_dataset_project_id")),
        sa.PrimaryKeyConstraint("job_id", "role", name=op.f("pk_job_dataset")),
    )
    op.create_index(op.f("ix_job_dataset_dataset_id"), "job_dataset", ["dataset_id"])


def downgrade() -> None:
    op.drop_table("job_dataset")
