"""Tables of the room that writes them: profiles."""

from __future__ import annotations

revision = "0003_profiles"
down_revision = "0002_transcripts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
