"""From what a format reads to what is kept: nothing twice, nothing pasted, turns joined, all of it counted."""

from __future__ import annotations

from dataclasses import replace

from transcripts.conversation import Conversation, Message
from transcripts.formats import TranscriptFormat
from transcripts.pasted import without_pasted
from transcripts.seen import Seen
from transcripts.tally import Reason, Tally


class Cleaner:
    """One import's. Remembers up to 24 bytes for each message of formats that repeat messages."""

    def __init__(self, tally: Tally, *, keep_pasted: bool) -> None:
        self.tally = tally
        self._keep_pasted = keep_pasted
        self._seen = Seen()

    def turns(self, conversation: Conversation, format: TranscriptFormat, *, users: frozenset[str]) -> list[Message]:
        """Return what is left of a conversation's messages."""
        self.tally.dropped.update(conversation.dropped)
        messages = list(conversation.messages)
        if format.repeats_messages:
            messages = [message for message in messages if self._is_new(message)]
        if format.holds_pasted and not self._keep_pasted and not conversation.is_account:
            messages = [own for message in messages if (own := self._own(message, users)).text]
        return _joined(messages) if format.merges_speakers else messages

    def keep(self, turns: list[Message], *, users: frozenset[str]) -> None:
        """Count a conversation that was kept."""
        self.tally.conversations += 1
        self.tally.messages += len(turns)
        self.tally.user_messages += sum(1 for turn in turns if turn.speaker in users)

    def _is_new(self, message: Message) -> bool:
        """Whether this message was not read before in this import: a branch or a resumed session begins with copies.

        Without its time a message may be said twice. Copies of what other imports kept are for datasets to know.
        """
        if message.time is None:
            return True
        if self._seen.add(f"{message.speaker}\0{message.time.isoformat()}\0{message.text}"):
            return True
        self.tally.dropped[Reason.REPEATED] += 1
        return False

    def _own(self, message: Message, users: frozenset[str]) -> Message:
        if message.speaker not in users:
            return message
        text, passages = without_pasted(message.text)
        self.tally.dropped[Reason.PASTED] += passages
        return replace(message, text=text) if passages else message


def _joined(messages: list[Message]) -> list[Message]:
    """Join consecutive messages of one speaker under the first one's time."""
    groups: list[list[Message]] = []
    for message in messages:
        if groups and groups[-1][0].speaker == message.speaker:
            groups[-1].append(message)
        else:
            groups.append([message])
    return [
        Message(speaker=group[0].speaker, time=group[0].time, text="\n".join(message.text for message in group))
        for group in groups
    ]
