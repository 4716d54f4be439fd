"""A version may come from a class that was added, without a job.

Revision: 20261123_added_classes
Revises: 20261123_alignments
"""

import sqlalchemy as sa
from alembic import op

revision = "20261123_added_classes"
down_revision = "20261123_alignments"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("model_version") as table:
        table.alter_column("job_id", existing_type=sa.String(length=40), nullable=True)


def downgrade() -> None:
    # Before this revision every version had a job: those without one stay, under a name that no job has.
    op.execute("UPDATE model_version SET job_id = 'none_' || id WHERE job_id IS NULL")
    with op.batch_alter_table("model_version") as table:
        table.alter_column("job_id", existing_type=sa.String(length=40), nullable=False)
