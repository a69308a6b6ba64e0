"""Reading a few files of known names out of a tar archive.

Only what such an archive needs: the names and sizes in the headers. Extended headers are passed
over like any member, so that none of them can claim memory or give a file another name.
Source: POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

from collections.abc import Container

from convnet.common.reading import Budget, Limit
from convnet.data.inflate import DamagedError, Stream, read_up_to

BLOCK = 512
_CHUNK = 1 << 20  # bytes passed over at a time
_MEMBERS = Limit(10_000, "members in an archive")
_FILE_TYPES = (b"0", b"\0")


def read_members(stream: Stream, names: Container[str], limit: Limit) -> dict[str, bytes]:
    """The content of the regular files with these names; "./" before a name is passed over.

    Args:
        stream: the archive.
        names: names of the files wanted.
        limit: the most bytes that each may have.

    Raises:
        DamagedError: no archive, damaged, or one of the files comes twice. EOFError: it ends early.
        BudgetError: too many members, or too large a file.
    """
    found: dict[str, bytes] = {}
    members = Budget(_MEMBERS)
    first = True
    while len(header := stream.read(BLOCK)) == BLOCK and header.strip(b"\0"):
        members.spend()
        name, size, is_file = parse_header(header)
        if is_file and name in names:
            if name in found:
                raise DamagedError(f"{name} comes twice")
            limit.check(size)
            found[name] = _take(stream, size)
            _take(stream, -size % BLOCK)
        else:
            _pass_over(stream, size + -size % BLOCK)
        first = False
    if len(header) < BLOCK:
        if first:
            raise DamagedError("not a tar archive")
        raise EOFError
    while stream.read(_CHUNK):  # to the end, where gzip has its checksum
        pass
    return found


def parse_header(header: bytes) -> tuple[str, int, bool]:
    """Name, size, and whether it is a regular file.

    Raises: DamagedError: no header of a tar archive.
    """
    said = _octal(header[148:156])
    if said != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise DamagedError("a header that is damaged, or none of a tar archive")
    name = header[:100].partition(b"\0")[0]
    if header[257:262] == b"ustar" and (prefix := header[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    text = name.decode("utf-8", "surrogateescape").removeprefix("./")
    return text, _octal(header[124:136]), header[156:157] in _FILE_TYPES


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0") or b"0"
    if not set(digits) <= set(b"01234567"):
        raise DamagedError("a header with a number that is none")
    return int(digits, 8)


def _take(stream: Stream, size: int) -> bytes:
    found = read_up_to(stream, size)
    if len(found) < size:
        raise EOFError
    return bytes(found)


def _pass_over(stream: Stream, size: int) -> None:
    for start in range(0, size, _CHUNK):
        _take(stream, min(_CHUNK, size - start))
