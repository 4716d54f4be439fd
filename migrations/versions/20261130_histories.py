"""A page of a history is read from an index: an alias or domain may have been moved any number of times.

Revision: 20261130_histories
Revises: 20261130_counted_bytes
"""

from alembic import op

revision = "20261130_histories"
down_revision = "20261130_counted_bytes"
branch_labels = None
depends_on = None

HISTORIES = {"alias_change": "alias", "domain_change": "domain"}


def upgrade() -> None:
    for table, name in HISTORIES.items():
        op.create_index(op.f(f"ix_{table}_model_id_{name}_id"), table, ["model_id", name, "id"], unique=False)


def downgrade() -> None:
    for table, name in HISTORIES.items():
        op.drop_index(op.f(f"ix_{table}_model_id_{name}_id"), table_name=table)
