"""Waste: what is to be deleted from storage, until it is.

Revision: 20261129_waste
Revises: 20261128_uploads
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_waste"
down_revision = "20261128_uploads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "waste",
        sa.Column("prefix", sa.String(length=300), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_waste_project_id")),
        sa.PrimaryKeyConstraint("prefix", name=op.f("pk_waste")),
    )
    op.create_index(op.f("ix_waste_due_at"), "waste", ["due_at"])


def downgrade() -> None:
    op.drop_table("waste")
