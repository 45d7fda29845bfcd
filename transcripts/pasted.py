"""What a user pasted rather than wrote: code, quotes of others, logs.

Only what can be told by its form is taken for pasted; in doubt it is the user's.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"[ \t]{0,3}(?P<fence>`{3,}|~{3,})")
_MIN_LINES = {"quote": 3, "log": 3, "code": 4, "dump": 1}
_MIN_QUOTE_CHARACTERS = 200
_MAX_WORD = 400
# Bounded throughout: each line is looked at once.
_LOG = re.compile(
    r"""\s{0,40}(?:
        \[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?          # 2026-01-02 10:11:12
      | \[?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\]?\s
      | [A-Z][a-z]{2}\s{1,2}\d{1,2}\s\d\d:\d\d:\d\d\s           # syslog
      | \[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL)\]?[\s:|]
      | Traceback\s\(most\srecent|File\s"[^"]{1,300}",\sline\s\d
      | at\s[\w.$<>/]{1,200}\(|Caused\sby:\s|\.{3}\s\d{1,6}\smore
      | \w{1,60}(?:Error|Exception|Warning):\s
      | (?:@@\s-\d|diff\s--git\s|index\s[0-9a-f]{7,40}\.\.|[-+]{3}\s[ab]/)
      | \$\s|(?:npm|yarn|pip|make|cargo|error|warning)(?:\sERR)?[!:\[]{1,2}\d?
    )""",
    re.VERBOSE,
)

_CODE = re.compile(
    r"""[ \t]{0,60}(?:
        (?:def|class|async\sdef)\s\w{1,80}[(:]|(?:import\s\w[\w.]{0,100}|from\s[\w.]{1,100}\simport\s.{1,200})$
      | (?:function|const|let|var|public|private|static|package|using|fn|func|struct|interface)\s[^.?!]{1,200}[;{(=]
      | \#(?:include|define|!/)|</?\w{1,40}(?:\s[^>]{0,200})?>|\}|\{|\);?$|//\s|/\*|\*/
      | [\w.\[\]'"]{1,80}\s?[-+*/|&:]?=[=>]?\s?\S|[\w.]{1,80}\([^)]{0,200}\);?$
      | (?:return|if|for|while|else|elif)\b.{0,200}[;:{]$
      | .{1,300}[;{]$
    )""",
    re.VERBOSE,
)


def without_pasted(text: str) -> tuple[str, int]:
    """Return what of a message is the user's own, and how many passages were taken out.

    Taken out are: blocks between code fences, also when the last is not closed; quotes (``> ``) of three
    lines or 200 characters; three or more lines of a log, a stack trace or a diff on end; four of code; words of
    over 400 characters.
    """
    lines, passages = _without_fences(text.split("\n"))
    kept: list[str] = []
    for kind, block in _blocks(lines):
        if len(block) >= _MIN_LINES.get(kind, len(block) + 1) or (kind == "quote" and _is_long(block)):
            passages += 1
        else:
            kept += block
    if not passages:
        return text, 0
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), passages


def _without_fences(lines: list[str]) -> tuple[list[str], int]:
    kept: list[str] = []
    passages, fence = 0, ""
    for line in lines:
        found = _FENCE.match(line)
        if fence:
            if found and found["fence"].startswith(fence) and line.strip() == found["fence"]:
                fence = ""
        elif found and "`" not in line[found.end() :]:
            fence = found["fence"]
            passages += 1
        else:
            kept.append(line)
    return kept, passages


def _blocks(lines: list[str]) -> list[tuple[str, list[str]]]:
    """Group lines of one kind.

    Indented lines, and blank ones between others of it, belong to the log or code that they stand under.
    """
    blocks: list[tuple[str, list[str]]] = []
    for line in lines:
        above = blocks[-1][0] if blocks else ""
        inside = above in {"log", "code"} and (not line.strip() or line.startswith(("  ", "\t")))
        kind = above if inside else _kind(line)
        if kind == above:
            blocks[-1][1].append(line)
        else:
            if blocks:
                blocks.append(("own", _without_end(blocks[-1][1])))
            blocks.append((kind, [line]))
    return [(kind, block) for kind, block in blocks if block]


def _without_end(block: list[str]) -> list[str]:
    """Take the blank lines off the end of a block; return them."""
    end = len(block)
    while end and not block[end - 1].strip():
        end -= 1
    blank = block[end:]
    del block[end:]
    return blank


def _kind(line: str) -> str:
    if line.startswith(">") and not line.startswith(">>>"):
        return "quote"
    if line.startswith(">>> ") or _LOG.match(line):
        return "log"
    if _CODE.match(line):
        return "code"
    return "dump" if len(line) > _MAX_WORD and max(map(len, line.split()), default=0) > _MAX_WORD else "own"


def _is_long(block: list[str]) -> bool:
    return sum(map(len, block)) >= _MIN_QUOTE_CHARACTERS
