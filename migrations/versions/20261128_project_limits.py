"""Limits of projects: bytes, jobs, requests.

Revision: 20261128_project_limits
Revises: 20261128_api_keys
"""

import sqlalchemy as sa
from alembic import op

revision = "20261128_project_limits"
down_revision = "20261128_api_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("project", schema=None) as batch_op:
        batch_op.add_column(sa.Column("max_bytes", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("max_jobs", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("max_requests", sa.Double(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("project", schema=None) as batch_op:
        batch_op.drop_column("max_requests")
        batch_op.drop_column("max_jobs")
        batch_op.drop_column("max_bytes")
