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
    """Versions that were imported, or made from such a one: their graph does not lie with those of jobs."""
    version = sa.table(
        "model_version",
        sa.column("id", sa.String),
        sa.column("job_id", sa.String),
        sa.column("spec", sa.JSON),
        sa.column("graph_key", sa.String),
        sa.column("graph_bytes", sa.BigInteger),
    )
    connection = op.get_bind()
    # One spec at a time: each may be megabytes.
    for (version_id,) in connection.execute(sa.select(version.c.id).where(version.c.job_id.is_(None))).all():
        spec = connection.scalar(sa.select(version.c.spec).where(version.c.id == version_id))
        graph = spec["files"].get("backbone.onnx", {})
        if graph.get("key") not in (None, f"graphs/{spec['backbone']['digest']}/backbone.onnx"):
            found = {"graph_key": graph["key"], "graph_bytes": graph["size_bytes"]}
            connection.execute(sa.update(version).where(version.c.id == version_id).values(found))
