"""Prediction logs: models that keep what they are asked.

Revision: 20261127_prediction_logs
Revises: 20261127_origins
"""

import sqlalchemy as sa
from alembic import op

revision = "20261127_prediction_logs"
down_revision = "20261127_origins"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "prediction_log",
        sa.Column("model_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("keep_days", sa.Integer(), nullable=False),
        sa.Column("images", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_prediction_log_model_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_prediction_log_project_id")),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_prediction_log")),
    )


def downgrade() -> None:
    op.drop_table("prediction_log")
