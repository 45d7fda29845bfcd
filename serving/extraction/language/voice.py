"""Is this turn its writer's own voice? What others said, quoted, sung, played or joked is not.

Careful rather than clever: a turn with any of these signs supports nothing. A true statement lost is a line less in a
profile; a false one is somebody's words in the wrong mouth. No pattern takes more than linear time.
"""

from __future__ import annotations

import re

# A single mark may be an apostrophe, unless words in the first person begin with it.
_QUOTED = re.compile(
    r"^[^\S\n]*+(?:>|//)|[\"“”«»]|```|~~|<!--|/\*|(?<!\w)[`‘]|`(?!\w)|(?<!\w)'(?=(?:i|my|we|our)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_LABELLED = re.compile(r"(?<![\w'’.-])[\w'’.-]++[^\S\n]{0,3}+:\s++(?:i|i['’]m|i['’]ve|my|we|our)\b", re.IGNORECASE)
_REPORTED = re.compile(
    r"\b(?:said|says|saying|told|tells|wrote|writes|asked|asks|claims|claimed|thinks|believes|assumes|goes(?=,)|lyrics?"
    r"|translate|translation|character|role-?play|pretend\w*+|song|quote|quoting|quoted"
    r"|(?:was|were|is|are|be|['’]m|['’]s|['’]re) (?:all )?like(?=,)"
    r"|(?:people|nobody|everyone|everybody|somebody|someone|they|some|you) (?:say|think|believe|assume|claim)"
    r"|two truths|true or false|fill in the|example sentence|for example(?=:)|imagine (?:that|you|if)|act as"
    r"|speaking as|reads(?=\s++(?:i|my)\b)"
    r"|(?:joke|meme|slogan|motto|poem|tweet|headline|caption)s?(?=:))\b",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:not true|isn['’]?t true|untrue|(?:it['’]?s|is|was) (?:false|a lie)|kidding|joking|jk|sarcas\w*+|yeah right"
    r"|as if|hell freezes|no one ever|nobody ever|just messing|messing with you|pulling your leg|opposite day)\b"
    r"|/s\b|\bnot\s{0,3}+!|🙄",
    re.IGNORECASE,
)

# Something to be worked on is pasted, and may be anybody's: what follows a request for that is no statement.
_TASK = re.compile(
    r"^[^\S\n]*+(?:(?:please|pls|help me(?: to)?|(?:can|could|would|will) you(?: please)?)\s++)?+"
    r"(?:summari[sz]e|proof-?read|paraphrase|rephrase|rewrite|reword|edit|correct|improve|polish|shorten|analy[sz]e"
    r"|classify|evaluate|grade|continue|complete|rate|fix|consider|example|e\.?g\.?|for instance)(?!\w)",
    re.IGNORECASE | re.MULTILINE,
)
_PASTED = re.compile(
    r"^(?:from|to|cc|subject|sent|date|re|fwd?)[^\S\n]*+:|^dear\b[^\n,]{0,40}+,[^\S\n]*+$"
    r"|^(?:(?:best|kind|warm|kindest|warmest)\s++)?+regards\b|^(?:yours )?sincerely\b|\bforwarded message\b"
    r"|\b(?:this|that|the|my|his|her|their|following|example) sentence\b|\bthe following\b|\bproof-?read"
    r"|\bhere(?:['’]?s| is) (?:my|the|an?|his|her|their)\b[^\n]{0,40}?\b(?:e-?mail|letter|essay|message|review|draft)\b"
    r"|\byes or no\b|\bhow true\b|^(?:person|speaker|participant)\b[^\n]{0,12}?[-–—|>→=]\s",
    re.IGNORECASE | re.MULTILINE,
)
_SIGNS = (_QUOTED, _LABELLED, _REPORTED, _TAKEN_BACK, _TASK, _PASTED)


def is_own_voice(turn_text: str) -> bool:
    """Say whether everything in a turn may be taken as meant, and as meant by its writer of themselves."""
    return not any(sign.search(turn_text) for sign in _SIGNS)
