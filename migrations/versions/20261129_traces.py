"""The trace that a job belongs to.

Revision: 20261129_traces
Revises: 20261129_fair_claims
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_traces"
down_revision = "20261129_fair_claims"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("trace_parent", sa.String(length=60), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_column("trace_parent")
