"""Fair claims, and time on GPUs.

Revision: 20261129_fair_claims
Revises: 20261129_waste
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_fair_claims"
down_revision = "20261129_waste"
branch_labels = None
depends_on = None

QUEUED = sa.text("state = 'queued'")
CLAIMED = sa.text("claimed_at IS NOT NULL")


def upgrade() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_job_waiting", table_name="job", postgresql_where=QUEUED, sqlite_where=QUEUED)
    op.create_index(
        "ix_job_waiting",
        "job",
        ["queue", "project_id", "priority", "id"],
        postgresql_where=QUEUED,
        sqlite_where=QUEUED,
    )
    op.create_index(
        "ix_job_claimed", "job", ["project_id", "claimed_at"], postgresql_where=CLAIMED, sqlite_where=CLAIMED
    )
    with op.batch_alter_table("project", schema=None) as batch_op:
        batch_op.add_column(sa.Column("max_gpu_seconds", sa.BigInteger(), nullable=True))
    op.create_table(
        "gpu_use",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_gpu_use_project_id")),
        sa.PrimaryKeyConstraint("project_id", "day", "job_id", name=op.f("pk_gpu_use")),
    )


def downgrade() -> None:
    op.drop_table("gpu_use")
    with op.batch_alter_table("project", schema=None) as batch_op:
        batch_op.drop_column("max_gpu_seconds")
    op.drop_index("ix_job_claimed", table_name="job", postgresql_where=CLAIMED, sqlite_where=CLAIMED)
    op.drop_index("ix_job_waiting", table_name="job", postgresql_where=QUEUED, sqlite_where=QUEUED)
    op.create_index("ix_job_waiting", "job", ["queue", "priority", "id"], postgresql_where=QUEUED, sqlite_where=QUEUED)
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_column("claimed_at")
