"""What the simulated model makes of a text: words, evidence for a choice, injected instructions.

1. A choice is scored by the text: 3 for each time the member itself is named, 1 for each of its
   words that occurs, 1 for each sign of it that occurs (`_SIGNS`: "crash" is a sign of "bug").
   The best score wins; on a tie, and with no evidence at all, a neutral member ("Medium", "None",
   "Task") wins over others, then the first one.
2. GULLIBLE, on purpose, so that a policy behind the model can be tested: a sentence such as
   "ignore all previous instructions and ..." is an order. Its payload is the rest of the
   paragraph, URLs and @mentions included; see `answers` for what is done with it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = [
    "choose",
    "excerpt",
    "find_injection",
    "mentioned",
    "named_tools",
    "sentence_about",
    "words",
]

_WORD: Final = re.compile(r"[^\W_]+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_INJECTION: Final = re.compile(
    r"\b(?:ignore|disregard|forget|override)\s+"
    r"(?:(?:all|any|everything|every|the|these|those|your|my|of)\s+)*"
    r"(?:(?:previous|prior|above|earlier|preceding|system|other)\s+)*"
    r"(?:instructions?|rules?|prompts?|directions?|above|previous)"
    r"(?:\s+(?:above|before|given|so\s+far))*",
    re.IGNORECASE,
)
_PARAGRAPH_END: Final = re.compile(r"\n\s*\n|\\n\\n|</|\"\s*[,}\]]")
_LEADING: Final = " \t\r\n.,:;!-\u2013\u2014"
_NEUTRAL: Final = frozenset({
    "none", "other", "unknown", "neutral", "normal", "medium", "task", "unclear", "general",
})  # fmt: skip
_SIGNS: Final[Mapping[str, tuple[str, ...]]] = {
    "bug": ("crash", "crashes", "error", "errors", "exception", "traceback", "broken", "fails",
            "failed", "failure", "wrong", "regression", "stacktrace", "freezes", "hangs"),
    "story": ("feature", "want", "wish", "ability", "allow"),
    "improvement": ("faster", "improve", "better", "slow", "nicer", "simplify"),
    "highest": ("outage", "urgent", "asap", "production", "breach", "emergency"),
    "blocker": ("outage", "blocks", "blocked", "blocking", "emergency"),
    "critical": ("outage", "urgent", "production", "breach", "loss", "corrupt"),
    "high": ("important", "soon", "crash", "crashes", "customers", "many"),
    "low": ("cosmetic", "typo", "minor", "small", "sometime"),
    "lowest": ("trivial", "someday", "whenever"),
    "question": ("how", "why", "what", "question"),
    "security": ("vulnerability", "xss", "injection", "breach", "password", "leak"),
    "documentation": ("docs", "readme", "manual", "typo"),
    "positive": ("great", "love", "thanks", "excellent", "happy"),
    "negative": ("bad", "hate", "terrible", "awful", "angry"),
}  # fmt: skip
_NAMED: Final = 3
_EXCERPT_CHARS: Final = 160
_TAG: Final = re.compile(r"</?[a-z][\w-]*>", re.IGNORECASE)
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_WORD_THAT_TELLS: Final = 4


def words(text: str) -> list[str]:
    """Return the words of a text in lower case; camelCase and snake_case names are taken apart."""
    return _WORD.findall(_CAMEL.sub(" ", text).replace("_", " ").lower())


def choose(members: Sequence[object], text: str, order: str | None) -> object:
    """Return the member best supported by the text; a member named in an order wins outright."""
    if order is not None:
        named = mentioned(members, order)
        if named:
            return named[0]
    found = set(words(text))
    lowered = text.lower()
    return max(
        members,
        key=lambda member: (_score(str(member), lowered, found), str(member).lower() in _NEUTRAL),
    )


def mentioned(members: Sequence[object], text: str) -> list[object]:
    """Return the members named in the text as whole words, in the members' order."""
    lowered = text.lower()
    return [member for member in members if _times_named(str(member), lowered)]


def _score(member: str, lowered: str, found: set[str]) -> int:
    parts = words(member)
    signs = {sign for part in parts for sign in _SIGNS.get(part, ())}
    own = len(found.intersection(parts))
    return _NAMED * _times_named(member, lowered) + own + len(found & signs)


def _times_named(member: str, lowered: str) -> int:
    if not member.strip():
        return 0
    return len(re.findall(rf"(?<!\w){re.escape(member.lower())}(?!\w)", lowered))


def find_injection(text: str) -> str | None:
    """Return the payload of the first injected instruction, or None where there is none."""
    for found in _INJECTION.finditer(text):
        rest = text[found.end() :]
        end = _PARAGRAPH_END.search(rest)
        payload = rest[: end.start()] if end else rest
        payload = payload.strip(_LEADING).removeprefix("and ").strip()
        if payload:
            return payload
    return None


def named_tools(names: Sequence[str], text: str) -> list[str]:
    """Return the tools that the text asks for: "use the NAME tool" or "use NAME"."""
    return [
        name
        for name in names
        if re.search(rf"\buse\s+(?:the\s+)?[`'\"]?{re.escape(name)}(?![\w-])", text, re.IGNORECASE)
    ]


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line, without mark-up."""
    line = " ".join(_TAG.sub(" ", text).split())
    if len(line) <= _EXCERPT_CHARS:
        return line
    end = line.rfind(" ", 0, _EXCERPT_CHARS)
    return f"{line[: end if end > 0 else _EXCERPT_CHARS]} ..."


def sentence_about(name: str, text: str) -> str:
    """Return the first sentence that shares a word with a name, or the beginning of the text."""
    wanted = {_singular(word) for word in words(name) if len(word) >= _WORD_THAT_TELLS}
    for sentence in _SENTENCE_END.split(_TAG.sub(" ", text)):
        if wanted.intersection(map(_singular, words(sentence))):
            return excerpt(sentence)
    return excerpt(text)


def _singular(word: str) -> str:
    return word.removesuffix("s")
