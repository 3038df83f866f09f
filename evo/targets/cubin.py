"""What of a cubin is the program: two variants with one digest run alike, whatever their sources were called."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SYMTAB, _NOBITS = 2, 8
_DATA = b".nv.global.init"
# Code, and the constants that code reads by offset: literals (bank 2), __constant__ (bank 3).
_READ = (b".text.", b".nv.constant2", b".nv.constant3")
_SIZED = (b".nv.shared.", b".nv.local.")  # no contents; the size is what the launch reserves
_SCALAR_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Section:
    """One section header (ELF64) and its contents."""

    name: bytes
    kind: int
    info: int  # of .text: the register count in its upper byte
    link: int
    size: int
    body: bytes


def program_digest(cubin: bytes) -> str:
    """Hex digest of a cubin's instructions, constants, tables, registers and reserved memory.

    NVRTC keeps every constexpr variable as a global with a name, whether code reads it or not. A scalar is folded into
    the code that uses it, so its global is left out: else a knob that the template never reads would make a new binary.
    Tables, which code indexes at run time, are kept; names of symbols and files are not.
    """
    sections = list(_sections(cubin))
    parts: list[bytes] = []
    for section in sections:
        if section.name.startswith(_READ):
            parts += [struct.pack("<IQ", section.info >> 24, section.size), section.body]
        elif section.name.startswith(_SIZED):
            parts.append(struct.pack("<Q", section.size))
    parts += sorted(_tables(sections))
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:32]


def _sections(cubin: bytes) -> Iterator[_Section]:
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError("not a 64-bit ELF file")
    (start,) = struct.unpack_from("<Q", cubin, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, start + i * entry_size) for i in range(count)]
    names = headers[names_index][4]
    for name, kind, _, _, offset, size, link, info, _, _ in headers:
        end = cubin.index(b"\0", names + name)
        body = b"" if kind == _NOBITS else cubin[offset : offset + size]
        yield _Section(cubin[names + name : end], kind, info, link, size, body)


def _tables(sections: list[_Section]) -> Iterator[bytes]:
    """Contents of the initialised globals that are larger than a scalar."""
    for table in (section for section in sections if section.kind == _SYMTAB):
        for _, kind, _, index, value, size in struct.iter_unpack("<IBBHQQ", table.body):
            if kind & 15 == 1 and size > _SCALAR_BYTES and index < len(sections) and sections[index].name == _DATA:
                yield sections[index].body[value : value + size]
