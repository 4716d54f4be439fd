"""Alignments, numbered per project, and the domains of models that they are bound to.

Revision: 20261123_alignments
Revises: 20261123_job_datasets
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")

revision = "20261123_alignments"
down_revision = "20261123_job_datasets"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("project", sa.Column("last_alignment", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "alignment",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("recipe", DOCUMENT, nullable=False),
        sa.Column("backbone", sa.String(length=200), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("backbone_digest", sa.String(length=64), nullable=True),
        sa.Column("moving_backbone", DOCUMENT, nullable=True),
        sa.Column("prefix", sa.String(), nullable=True),
        sa.Column("files", DOCUMENT, nullable=False),
        sa.Column("result", DOCUMENT, nullable=True),
        sa.Column("failure_code", sa.String(length=40), nullable=True),
        sa.Column("failure_message", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_alignment_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alignment")),
        sa.UniqueConstraint("project_id", "number", name=op.f("uq_alignment_project_id_number")),
    )
    op.create_index(op.f("ix_alignment_project_id_id"), "alignment", ["project_id", "id"])
    op.create_table(
        "domain_binding",
        sa.Column("model_id", sa.String(length=40), nullable=False),
        sa.Column("domain", sa.String(length=100), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("alignment_id", sa.String(length=40), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["alignment_id"], ["alignment.id"], name=op.f("fk_domain_binding_alignment_id")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_domain_binding_model_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_domain_binding_project_id")),
        sa.PrimaryKeyConstraint("model_id", "domain", name=op.f("pk_domain_binding")),
    )
    op.create_index(op.f("ix_domain_binding_alignment_id"), "domain_binding", ["alignment_id"])
    op.create_table(
        "domain_change",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("model_id", sa.String(length=40), nullable=False),
        sa.Column("domain", sa.String(length=100), nullable=False),
        sa.Column("alignment_id", sa.String(length=40), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_domain_change_model_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_domain_change_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_domain_change")),
    )
    op.create_index(op.f("ix_domain_change_model_id"), "domain_change", ["model_id"])


def downgrade() -> None:
    op.drop_table("domain_change")
    op.drop_table("domain_binding")
    op.drop_table("alignment")
    with op.batch_alter_table("project") as batch:
        batch.drop_column("last_alignment")
