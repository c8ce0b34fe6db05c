"""The file that `cellloop backup` writes: a zip of one Parquet file per table, and of the files that rows refer to.

Members lie in the zip as they are, so that any tool reads them. The last one, `manifest.json`, has the sha256 of each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import ArchiveDamaged
from db.backup import Kind
from db.bulk import Rows

FORMAT = 1
MANIFEST = "manifest.json"
GROUP_BYTES = 32 << 20  # of a table in memory at a time
BATCH = 5000  # rows read at a time
HEADER = 30  # bytes of a zip's local header, before the name and what else its last two numbers announce
ARROW: dict[Kind, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "truth": pa.bool_(),
    "text": pa.string(),
    "json": pa.string(),
    "bytes": pa.binary(),
    "moment": pa.timestamp("us", tz="UTC"),
    "day": pa.date32(),
}


@dataclass(frozen=True)
class Manifest:
    """What an archive holds. made_at: ISO 8601 in UTC. engine, revision: of the database it was made of.

    rows: how many of each table, in an order in which they can be put back. sha256: of each member.
    """

    made_at: str
    engine: str
    revision: str
    rows: dict[str, int]
    sha256: dict[str, str]
    format: int = FORMAT

    @property
    def files(self) -> dict[str, str]:
        """sha256 of the files that came along, by their path in the file store."""
        return {name.removeprefix("files/"): sha for name, sha in self.sha256.items() if name.startswith("files/")}


def table_member(name: str) -> str:
    """The member that holds a table."""
    return f"tables/{name}.parquet"


def file_member(file: str) -> str:
    """The member that is a file of the store."""
    return f"files/{file}"


class Passing:
    """Counts rows of all tables together while they pass, and moves a progress bar."""

    def __init__(self, total: int, on_progress: Callable[[int, int, str], None]) -> None:
        self.done, self.total, self.on_progress = 0, total, on_progress

    def __call__(self, batches: Iterable[Rows], table: str) -> Iterator[Rows]:
        """The batches as they come."""
        for batch in batches:
            yield batch
            self.done += len(batch)
            self.on_progress(self.done, self.total, table)


class _Member:
    """A member while it is written, as Parquet's writer wants a file to be."""

    def __init__(self, file: Any) -> None:
        self.file, self.digest, self.size, self.closed = file, hashlib.sha256(), 0, False

    def write(self, data: Any) -> int:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing: the zip is flushed when it is whole."""


def _groups(batches: Iterable[Rows], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in tables that are large enough to be packed well, and small enough to be held in memory."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for rows in batches:
        columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)]
        waiting.append(pa.record_batch(columns, schema=schema))
        size += waiting[-1].nbytes
        if size >= GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, size = [], 0
    yield pa.Table.from_batches(waiting, schema)


class ArchiveWriter:
    """Writes members into an open file one after the other, and the manifest at last."""

    def __init__(self, file: BinaryIO) -> None:
        self._zip = ZipFile(file, "w", ZIP_STORED)
        self._sha256: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @contextmanager
    def _member(self, name: str) -> Iterator[_Member]:
        with self._zip.open(name, "w", force_zip64=True) as file:
            member = _Member(file)
            yield member
        self._sha256[name] = member.digest.hexdigest()

    def add_table(self, name: str, kinds: Mapping[str, Kind], batches: Iterable[Rows]) -> int:
        """Write a table; how many rows. kinds: of its columns, in the order of a row's values."""
        schema = pa.schema([pa.field(column, ARROW[kind], metadata={"kind": kind}) for column, kind in kinds.items()])
        count = 0
        with (
            self._member(table_member(name)) as member,
            pq.ParquetWriter(member, schema, compression="zstd") as writer,
        ):
            for group in _groups(batches, schema):
                writer.write_table(group)
                count += group.num_rows
        return count

    def add_file(self, file: str, data: bytes) -> None:
        """Write a file of the store."""
        with self._member(file_member(file)) as member:
            member.write(data)

    def finish(self, made_at: str, engine: str, revision: str, rows: dict[str, int]) -> Manifest:
        """Write the manifest: without one, it is no archive."""
        manifest = Manifest(made_at, engine, revision, rows, self._sha256)
        self._zip.writestr(MANIFEST, json.dumps(asdict(manifest), indent=1))
        return manifest


class Archive:
    """An archive to be read, in place. Everything raises ArchiveDamaged; nothing is to be trusted before `check`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reading("a backup"), ZipFile(path) as archive:
            self._places = {info.filename: (info.header_offset, info.file_size) for info in archive.infolist()}
            content = json.loads(archive.read(MANIFEST))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, not {FORMAT}")
            self.manifest = Manifest(**content)
            self._bytes = pa.memory_map(str(path)).read_buffer()
        named = {MANIFEST, *self.manifest.sha256}
        if self._places.keys() != named or not named.issuperset(map(table_member, self.manifest.rows)):
            raise ArchiveDamaged(f"{path}: expected the members its manifest names, got others; use another backup")

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BadZipFile, pa.ArrowException, LookupError, TypeError, ValueError, RuntimeError, EOFError) as error:
            said = " ".join(str(error).split())[:200]
            raise ArchiveDamaged(f"{self.path}: expected {what}, got {said}; use another backup") from error

    def _member(self, name: str) -> pa.Buffer:
        offset, size = self._places[name]
        header = self._bytes.slice(offset, HEADER).to_pybytes()
        announced = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return self._bytes.slice(offset + HEADER + announced, size)

    def check(self, on_progress: Callable[[int, int, str], None]) -> None:
        """Read every byte; on_progress(megabytes done, all, member). Raises ArchiveDamaged where one differs."""
        done, total = 0, sum(size for _, size in self._places.values())
        for name, expected in self.manifest.sha256.items():
            with self._reading(name):
                member = self._member(name)
                found = hashlib.sha256(memoryview(member)).hexdigest()
                if found != expected:
                    raise ValueError(f"sha256 {found[:12]}... for {expected[:12]}...")
            done += member.size
            on_progress(done >> 20, total >> 20, name)

    def file(self, file: str) -> bytes:
        """The bytes of a file of the store."""
        return bytes(self._member(file_member(file)).to_pybytes())

    def table(self, name: str) -> tuple[dict[str, Kind], Iterator[Rows]]:
        """The kinds of a table's columns, and its rows in their order, as `db.bulk.insert_rows` takes them."""
        with self._reading(name):
            table = pq.ParquetFile(pa.BufferReader(self._member(table_member(name))))
            kinds = {field.name: field.metadata[b"kind"].decode() for field in table.schema_arrow}
        batches = (batch.columns for batch in table.iter_batches(BATCH))
        return kinds, (list(zip(*(column.to_pylist() for column in columns), strict=True)) for columns in batches)
