"""Messages of ours: fields escaped, segments in order, UTF-8 as MSH-18 says."""

from collections.abc import Iterable, Sequence

CHARSET = "UNICODE UTF-8"
_ESCAPES = str.maketrans(
    {
        "|": "\\F\\",
        "^": "\\S\\",
        "&": "\\T\\",
        "~": "\\R\\",
        "\\": "\\E\\",
        "\n": "\\.br\\",
        "\r": None,
        **{chr(code): " " for code in range(32) if chr(code) not in "\n\r"},
    }
)

Component = str | None


def text(value: Component) -> str:
    """Escape a value so that nothing in it separates or ends anything."""
    return (value or "").replace("\r\n", "\n").translate(_ESCAPES)


def composite(*components: Component) -> str:
    """Join components, those left empty at the end left out."""
    return "^".join(text(component) for component in components).rstrip("^")


def repeated(values: Iterable[str]) -> str:
    """Join values that are escaped already."""
    return "~".join(values)


def segment(name: str, fields: dict[int, str]) -> str:
    """Write a segment of fields that are escaped already, by their numbers."""
    last = max(fields, default=0)
    return "|".join([name, *(fields.get(number, "") for number in range(1, last + 1))])


def header(fields: dict[int, str]) -> str:
    """MSH, whose first field is the separator itself."""
    last = max(fields)
    return "|".join(["MSH", "^~\\&", *(fields.get(number, "") for number in range(3, last + 1))])


def message(segments: Sequence[str]) -> bytes:
    return "".join(f"{line}\r" for line in segments).encode()
