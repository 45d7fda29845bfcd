"""Tables of the room that writes them: transcripts."""

from __future__ import annotations

revision = "0002_transcripts"
down_revision = "0001_registry"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
