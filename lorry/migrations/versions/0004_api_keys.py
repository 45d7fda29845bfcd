"""Tables of the room that writes them: api_keys."""

from __future__ import annotations

revision = "0004_api_keys"
down_revision = "0003_profiles"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
