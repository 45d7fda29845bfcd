"""Whoever deletes what continues a transcript, also a release that knows nothing of that: it counts again.

Another one may continue it, too, so it is marked anew; see `transcripts.states`.
"""

from __future__ import annotations

from alembic import op

revision = "0019_deleted_states"
down_revision = "0018_finished_trainings"
branch_labels = None
depends_on = None

# The lock is the one that an import holds (`TranscriptRepository.lock_user`): it must not note meanwhile that what is
# gone continues something.
_UNMARK = """
create function unmark_continued() returns trigger language plpgsql as $$
declare owner record;
begin
    for owner in select distinct tenant, user_id from gone order by tenant, user_id loop
        perform pg_advisory_xact_lock(hashtextextended(
            'lorry transcripts' || chr(10) || owner.tenant || chr(10) || owner.user_id, 0
        ));
        update transcript t set is_continued = false, sought = null
            where t.tenant = owner.tenant and t.user_id = owner.user_id and t.is_continued and exists (
                select from gone
                where gone.tenant = t.tenant and gone.user_id = t.user_id and gone.marks @> array[t.sought]
            );
    end loop;
    return null;
end $$
"""


def upgrade() -> None:
    op.execute(_UNMARK)
    op.execute(
        "create trigger unmark_continued after delete on transcript referencing old table as gone "
        "for each statement execute function unmark_continued()"
    )


def downgrade() -> None:
    op.execute("drop trigger unmark_continued on transcript")
    op.execute("drop function unmark_continued()")
