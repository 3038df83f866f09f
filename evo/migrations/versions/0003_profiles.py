"""Profiles: hardware counters of variants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "profiles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("variant_key", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("case_name", sa.Text(), nullable=False),
        sa.Column("counters", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["variant_key"], ["variants.key"], name=op.f("fk_profiles_variant_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profiles")),
    )
    op.create_index(op.f("ix_profiles_variant_key"), "profiles", ["variant_key"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_profiles_variant_key"), table_name="profiles")
    op.drop_table("profiles")
