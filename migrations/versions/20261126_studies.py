"""Studies: rankings, evaluations, advice.

Revision: 20261126_studies
Revises: 20261123_added_classes
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
TABLES = ("ranking", "evaluation", "advice")

revision = "20261126_studies"
down_revision = "20261123_added_classes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in TABLES:
        op.create_table(
            table,
            sa.Column("id", sa.String(length=40), nullable=False),
            sa.Column("project_id", sa.String(length=40), nullable=False),
            sa.Column("state", sa.String(length=20), nullable=False),
            sa.Column("request", DOCUMENT, nullable=False),
            sa.Column("job_id", sa.String(length=40), nullable=True),
            sa.Column("result", DOCUMENT, nullable=True),
            sa.Column("failure_code", sa.String(length=40), nullable=True),
            sa.Column("failure_message", sa.String(), nullable=True),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
            sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f(f"fk_{table}_project_id")),
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        )
        op.create_index(op.f(f"ix_{table}_project_id_id"), table, ["project_id", "id"])


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
