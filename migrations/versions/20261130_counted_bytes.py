"""Bytes that no row told of: what is under way, prediction logs, and graphs that imports have brought.

Logs from before have 0, as what the previous release goes on writing: a collection counts what they store.

Revision: 20261130_counted_bytes
Revises: 20261130_invalid_sizes
"""

import sqlalchemy as sa
from alembic import op

revision = "20261130_counted_bytes"
down_revision = "20261130_invalid_sizes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("waste", "prediction_log"):
        op.add_column(table, sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("model_version", sa.Column("graph_key", sa.String(length=120), nullable=True))
    op.add_column("model_version", sa.Column("graph_bytes", sa.BigInteger(), server_default="0", nullable=False))
    named = sa.text("graph_key IS NOT NULL")
    op.create_index(
        "ix_model_version_graph",
        "model_version",
        ["project_id", "graph_key", "graph_bytes"],
        unique=False,
        postgresql_where=named,
        sqlite_where=named,
    )
    _name_graphs()


def downgrade() -> None:
    op.drop_index("ix_model_version_graph", table_name="model_version")
    op.drop_column("model_version", "graph_bytes")
    op.drop_column("model_version", "graph_key")
    for table in ("waste", "prediction_log"):
        op.drop_column(table, "size_bytes")


def _name_graphs() -> None:
    """Of versions that were imported, or stand on backbones of their project: others share what jobs have stored."""
    spec = sa.column("spec", sa.JSON)
    version = sa.table(
        "model_version",
        sa.column("id", sa.String),
        spec,
        sa.column("graph_key", sa.String),
        sa.column("graph_bytes", sa.BigInteger),
    )
    key, sha256, size = (spec[("files", "backbone.onnx", name)] for name in ("key", "sha256", "size_bytes"))
    name = spec[("backbone", "name")].as_string()
    of_import = key.as_string() == sa.literal("graphs/") + sha256.as_string() + sa.literal("/backbone.onnx")
    op.execute(
        sa.update(version)
        .where(key.as_string().is_not(None), sa.or_(of_import, name.like("user/%")))
        .values(graph_key=key.as_string(), graph_bytes=size.as_integer())
    )
