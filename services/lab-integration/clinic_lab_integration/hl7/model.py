r"""A message as HL7 sees it: segments, fields, repetitions, components, subcomponents; immutable.

Raw text is kept as sent and taken apart on access; escapes are resolved last (HL7 v2.5.1, 2.7), so
that an escaped separator never separates. An HL7 null (`""`) reads as empty.
"""

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from clinic_lab_integration.hl7.charset import decode_escaped

_FEWEST_MARKS, _MOST_MARKS = 2, 5
NULL = '""'
HEADERS = ("MSH", "BHS", "FHS")
_SEGMENT_NAME = re.compile(r"[ \t]*([A-Z][A-Z0-9]{2})")
_PATH = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?-(\d+)(?:\[(\d+)\])?(?:\.(\d+))?(?:\.(\d+))?")
# Control characters are not text (v2.5.1, 2.5.4) and PostgreSQL can't hold a NUL. They are replaced,
# not removed: "12<NUL>34" must not turn into another patient's number.
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), 127) if chr(code) not in "\t\n\r"}
_CONTROL = re.compile(f"[{re.escape(''.join(map(chr, _CONTROLS)))}]")


class MalformedDelimitersError(ValueError):
    """MSH-1 and MSH-2 don't name separators that can be told apart."""


@dataclass(frozen=True, slots=True)
class EncodingRules:
    """The separators that MSH-1 and MSH-2 name; an omitted one is the empty string."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""
    codec: str = "utf-8"

    @property
    def characters(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation


def read_encoding_rules(header: str, codec: str) -> EncodingRules:
    r"""The separators of a header segment.

    HL7 v2.5.1, 2.5.4: the subcomponent separator may be omitted, and without it the escape character;
    v2.7 adds a fifth, the truncation character. A doubled backslash (`^~\\&`) is what remains of a
    message that was once a string literal; it can mean nothing else.
    """
    field, characters = header[3], header[4:].split(header[3], 1)[0].rstrip()
    if len(characters) in (5, 6) and characters[2] == characters[3]:
        characters = characters[:3] + characters[4:]
    every = field + characters
    wrong = len(set(every)) < len(every) or set(every) - set(string.punctuation)
    if wrong or not _FEWEST_MARKS <= len(characters) <= _MOST_MARKS:
        raise MalformedDelimitersError
    component, repetition, escape_mark, subcomponent, truncation = (
        characters[place : place + 1] for place in range(_MOST_MARKS)
    )
    return EncodingRules(field, component, repetition, escape_mark, subcomponent, truncation, codec)


def fallback_encoding_rules(header: str, codec: str) -> EncodingRules:
    """Separators to answer with when the header's own can't be used: the recommended ones."""
    field = header[3]
    component, repetition, escape_mark, subcomponent = ("|" if mark == field else mark for mark in "^~\\&")
    return EncodingRules(field, component, repetition, escape_mark, subcomponent, codec=codec)


@lru_cache(maxsize=16)
def _escape_sequence(escape: str) -> re.Pattern[str]:
    mark = re.escape(escape)
    return re.compile(f"{mark}([FSTREPHN]|[Xx](?:[0-9A-Fa-f]{{2}})+|\\.[A-Za-z]{{2}}[+-]?[0-9]{{0,4}}){mark}")


def unescape(text: str, rules: EncodingRules) -> str:
    r"""HL7 v2.5.1, 2.7; what is no escape sequence (a lone backslash, `\Z..\`) stays as it is written."""
    if not rules.escape or rules.escape not in text:
        return text
    return _escape_sequence(rules.escape).sub(lambda match: _meaning(match[1], rules), text)


def _meaning(sequence: str, rules: EncodingRules) -> str:
    if sequence[0] in "Xx":
        text = decode_escaped(bytes.fromhex(sequence[1:]), rules.codec).translate(_CONTROLS)
        return "\n" if text == "\r" else text.replace("\r\n", "\n").replace("\r", "\n")
    if sequence[0] == ".":
        return _formatting(sequence[1:3].lower(), sequence[3:])
    return {
        "F": rules.field,
        "S": rules.component,
        "T": rules.subcomponent,
        "R": rules.repetition,
        "E": rules.escape,
        "P": rules.truncation,
    }.get(sequence, "")  # \H\ and \N\ switch highlighting


def _formatting(command: str, count: str) -> str:
    """HL7 v2.5.1, 2.7.5: commands that end a line end it; indents and fill modes have no text."""
    if command in ("br", "ce"):
        return "\n"
    if command == "sp":
        return "\n" * min(int(count.lstrip("+-") or 1), 99)
    return ""


def escape(text: str, rules: EncodingRules) -> str:
    """Text that is safe inside a field; line ends become blanks, since an unescaped CR ends the segment."""
    text = clean(text).replace("\r", " ").replace("\n", " ")
    codes = {
        rules.field: "F",
        rules.component: "S",
        rules.subcomponent: "T",
        rules.repetition: "R",
        rules.escape: "E",
    }
    quote = {ord(mark): f"{rules.escape}{code}{rules.escape}" for mark, code in codes.items() if mark}
    return text.translate(quote if rules.escape else dict.fromkeys(quote, " "))


@dataclass(frozen=True, slots=True)
class Repetition:
    """One occurrence of a field."""

    raw: str
    rules: EncodingRules

    @property
    def text(self) -> str:
        """The whole of it; separators that the data type doesn't use are characters like any other."""
        return "" if self.raw == NULL else unescape(self.raw, self.rules)

    def component(self, number: int, subcomponent: int | None = None) -> str:
        raw = _part(self.raw, self.rules.component, number)
        if subcomponent is not None:
            raw = _part(raw, self.rules.subcomponent, subcomponent)
        return "" if raw == NULL else unescape(raw, self.rules)

    def nested(self, number: int) -> "Repetition":
        """A component whose subcomponents are read as components (`PID-3.4`, an HD inside a CX)."""
        raw = _part(self.raw, self.rules.component, number)
        if self.rules.subcomponent:
            # An unescaped component separator can't be inside a component, so the exchange is safe.
            raw = raw.replace(self.rules.subcomponent, self.rules.component)
        return Repetition(raw, self.rules)


def _part(raw: str, separator: str, number: int) -> str:
    if not separator:
        return raw if number == 1 else ""
    parts = raw.split(separator, number)
    return parts[number - 1] if number <= len(parts) else ""


@dataclass(frozen=True, slots=True)
class Segment:
    """`fields[n]` is field n as sent; `fields[0]` is the name. `sequence` counts its like from 1."""

    fields: tuple[str, ...]
    rules: EncodingRules
    sequence: int = 1

    @property
    def name(self) -> str:
        return self.fields[0]

    def raw(self, field: int) -> str:
        return self.fields[field] if field < len(self.fields) else ""

    def repetitions(self, field: int) -> tuple[Repetition, ...]:
        """None for an empty field; an HL7 null is one repetition without text."""
        raw = self.raw(field)
        if not raw:
            return ()
        return tuple(Repetition(part, self.rules) for part in raw.split(self.rules.repetition))

    def first(self, field: int) -> Repetition:
        """The first repetition that has a value: `~^^^^^^S` puts an empty one before it."""
        every = self.repetitions(field)
        valued = (one for one in every if one.raw.strip(self.rules.component) not in ("", NULL))
        return next(valued, Repetition("", self.rules))

    def text(self, field: int, component: int | None = None, subcomponent: int | None = None) -> str:
        """The first repetition, resolved and without blanks around it."""
        if self.name in HEADERS and field in (1, 2):
            return self.raw(field)
        repetition = Repetition(self.raw(field).split(self.rules.repetition, 1)[0], self.rules)
        if component is None:
            return repetition.text.strip()
        return repetition.component(component, subcomponent).strip()


def read_segment(line: str, rules: EncodingRules, sequence: int = 1) -> Segment:
    return Segment(_fields(line, rules)[1], rules, sequence)


def _fields(line: str, rules: EncodingRules) -> tuple[str, tuple[str, ...]]:
    parts = line.split(rules.field)
    name = parts[0].strip()
    if name in HEADERS:  # v2.5.1, 2.15.9.1: the separator itself is field 1
        return name, (name, rules.field, *parts[1:])
    return name, (name, *parts[1:])


@dataclass(frozen=True, slots=True)
class Message:
    segments: tuple[Segment, ...]

    def all(self, name: str) -> tuple[Segment, ...]:
        return tuple(segment for segment in self.segments if segment.name == name)

    def get(self, path: str) -> str:
        """The text at an HL7 path: `PID-3.1`, `OBX[2]-5`, `PID-3[2].4.1`; empty where there is none."""
        match = _PATH.fullmatch(path)
        if match is None:
            raise ValueError(path)
        name, occurrence, field, repetition, component, subcomponent = match.groups()
        segments, nth = self.all(name), int(occurrence or 1) - 1
        if nth >= len(segments):
            return ""
        if repetition is None:
            return segments[nth].text(int(field), *(int(part) for part in (component, subcomponent) if part))
        every = segments[nth].repetitions(int(field))
        if int(repetition) > len(every):
            return ""
        chosen = every[int(repetition) - 1]
        return chosen.component(int(component), _number(subcomponent)) if component else chosen.text


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def clean(text: str) -> str:
    """Text without control characters; each becomes U+FFFD."""
    # Almost no line has any, and looking for one costs a tenth of translating.
    return text.translate(_CONTROLS) if _CONTROL.search(text) else text


def join_continuations(lines: Iterable[str], rules: EncodingRules) -> list[str]:
    """Segments, one each: a line that starts no segment continues the text of the one before it.

    Mixed line ends make this necessary: a sender that ends segments with CR may have LF inside a text.
    """
    segments: list[list[str]] = []
    for line in lines:
        if segments and not _starts_segment(line, rules):
            segments[-1].append(line)
        else:
            segments.append([line.lstrip(" \t")])
    return ["\n".join(parts) for parts in segments]


def _starts_segment(line: str, rules: EncodingRules) -> bool:
    match = _SEGMENT_NAME.match(line)
    return match is not None and line[match.end() :].rstrip()[:1] in ("", rules.field)


def read_message(lines: Iterable[str], rules: EncodingRules) -> Message:
    """Segments out of lines that `join_continuations` gave."""
    seen: dict[str, int] = {}
    segments = []
    for line in lines:
        name, fields = _fields(line, rules)
        seen[name] = seen.get(name, 0) + 1
        segments.append(Segment(fields, rules, seen[name]))
    return Message(tuple(segments))
