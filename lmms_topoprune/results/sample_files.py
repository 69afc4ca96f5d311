"""Reading the samples of one task: as rows, or as the few columns that a comparison needs.

A samples file holds one JSON object a line. Arrow reads only what is scored, a hundred times as fast as
Python's own parser and without an object a row; what it cannot read (another type in a later line, NaN)
is read row by row, to the same result.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute
from pyarrow import json as arrow_json

from lmms_topoprune._util import files
from lmms_topoprune._util.checked_files import CorruptFileError
from lmms_topoprune.errors import InputError

EXAM = ("target", "input", "media_digest")
"""What two runs must have in common: the right answer, the prompt, and the images asked about."""
FIXED = ("doc_id", "doc_hash", "filter", *EXAM)
NOT_SCORED = (*FIXED, "resps", "filtered_resps", "token_counts", "input_media", "arguments", "doc")
FIRST = 16
"""Lines from which the types of the columns are told."""


Column: TypeAlias = "NDArray[np.float64] | Sequence[Any]"
"""Numbers, or values of any kind; among these Arrow's own array of objects with fields."""


@dataclass(frozen=True)
class Samples:
    """The rows of one task, ordered by document; rows of one document keep their order.

    Attributes:
        path: the file.
        ids: (R,) each row's document, as text.
        columns: metric, or "filter" -> one value a row; an array (R,) of floats, nan where there is none,
            if all are numbers. See `field` and `objects`.
        exam: "target", "input", "media_digest" -> digest over the documents; without what no row tells.
        documents: how many there are; as many as rows where each was logged once.
        identity: digest of the documents' ids and of lmms-eval's own hashes of them.
    """

    path: Path
    ids: tuple[str, ...]
    columns: Mapping[str, Column]
    exam: Mapping[str, str]
    documents: int
    identity: str

    def __len__(self) -> int:
        return len(self.ids)


def field(column: Column, name: str) -> Column:
    """One field of a column's objects, as a column; None where there is none."""
    if isinstance(column, pa.StructArray):
        at = column.type.get_field_index(name)
        return _arrow_column(compute.struct_field(column, [at])) if at >= 0 else [None] * len(column)
    if isinstance(column, np.ndarray):
        return [None] * len(column)
    return _column([value.get(name) if isinstance(value, Mapping) else None for value in column])


def objects(column: Column) -> Sequence[Any]:
    """A column's values as Python has them."""
    if isinstance(column, pa.StructArray):
        found: list[Any] = column.to_pylist()
        return found
    return [None if np.isnan(v) else float(v) for v in column] if isinstance(column, np.ndarray) else column


def has_fields(column: Column) -> bool:
    return isinstance(column, pa.StructArray) or (
        not isinstance(column, np.ndarray) and any(isinstance(value, Mapping) for value in column)
    )


def read_samples(results: Path, task: str) -> list[dict[str, Any]]:
    """The samples of one task, in order of their documents.

    Raises:
        InputError: the samples file is missing, empty or cut short.
    """
    path = samples_path(results, task)
    return _rows(path, _bytes(path))


def read_columns(results: Path, task: str, metrics: Iterable[str] = ()) -> Samples:
    """What a comparison needs of the samples of one task.

    Args:
        results: the results file.
        task: whose samples.
        metrics: names that some rows may have though the first ones don't.

    Raises:
        InputError: the samples file is missing, empty or cut short.
    """
    path = samples_path(results, task)
    data = _bytes(path)
    return _by_arrow(path, data, metrics) or _by_rows(path, _rows(path, data))


def samples_path(results: Path, task: str) -> Path:
    return results.with_name(f"{results.name.removesuffix('_results.json')}_samples_{task}.jsonl")


def first_difference(one: Path, other: Path, task: str) -> str:
    """Where two runs did not answer the same exam: the first document, and what it is asked.

    Raises:
        InputError: a samples file cannot be read.
    """
    sides = [{str(row["doc_id"]): row for row in read_samples(path, task)} for path in (one, other)]
    for document, row in sides[0].items():
        against = sides[1].get(document)
        if against is None:
            return f"document {document} is in only one of them"
        for name in (*EXAM, "doc_hash"):
            a, b = row.get(name), against.get(name)
            if a != b and None not in (a, b):
                what = {"input": "prompt", "media_digest": "images"}.get(name, name)
                return f"{what} of document {document} is {_short(a)} and {_short(b)}"
    extra = next((document for document in sides[1] if document not in sides[0]), None)
    return "" if extra is None else f"document {extra} is in only one of them"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bytes(path: Path) -> bytes:
    try:
        return files.read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        raise CorruptFileError(f"{str(path)!r} is missing", "run lmms-eval with --log_samples") from None
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _rows(path: Path, data: bytes) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in data.decode("utf-8").split("\n") if line.strip()]
    except (ValueError, RecursionError):
        raise CorruptFileError(f"{str(path)!r} is cut short or not JSON lines", "evaluate again") from None
    if not rows or not all(isinstance(row, dict) and _named(row) for row in rows):
        raise CorruptFileError(f"{str(path)!r} holds no samples with a doc_id", "evaluate again")
    return sorted(rows, key=lambda row: (str(type(row["doc_id"])), row["doc_id"]))


def _named(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("doc_id"), (str, int, float))


def _by_rows(path: Path, rows: list[dict[str, Any]]) -> Samples:
    names = {name: None for row in rows for name in row if name == "filter" or name not in NOT_SCORED}
    once = list({str(row["doc_id"]): row for row in reversed(rows)}.values())[::-1]
    missing = {name: sum(row.get(name) is None for row in once) for name in EXAM}
    told = [name for name in EXAM if _told(name, missing[name], len(once))]
    return Samples(
        path=path,
        ids=tuple(str(row["doc_id"]) for row in rows),
        columns={name: _column([row.get(name) for row in rows]) for name in names},
        exam={name: _digest([_text(row.get(name)) for row in once]) for name in told},
        documents=len(once),
        identity=_digest([str(row["doc_id"]) for row in once])
        + _digest([_text(row.get("doc_hash")) for row in once]),
    )


def _told(name: str, missing: int, documents: int) -> bool:
    """Whether the rows tell a part of the exam; answers from a cache come without a look at the images."""
    return missing == 0 if name == "media_digest" else missing < documents


def _column(values: list[Any]) -> Column:
    """As an array where all values are numbers, or missing."""
    if not all(value is None or isinstance(value, (bool, int, float)) for value in values):
        return values
    return np.array([np.nan if value is None else float(value) for value in values])


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _digest(texts: Iterable[str]) -> str:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    return _hashed(b"".join(encoded), lengths)


def _hashed(data: Any, lengths: NDArray[np.int64]) -> str:
    found = hashlib.sha256(data)
    found.update(lengths.tobytes())
    return found.hexdigest()[:16]


def _by_arrow(path: Path, data: bytes, metrics: Iterable[str]) -> Samples | None:
    """The columns read by Arrow; None for what has to be read row by row."""
    schema = _schema(data)
    if schema is None or any(f'"{n}"'.encode() in data for n in metrics if n not in schema.names):
        return None
    options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    block = arrow_json.ReadOptions(block_size=max(1 << 20, len(data) + 1))
    try:
        table = arrow_json.read_json(pa.BufferReader(data), block, options).combine_chunks()
    except pa.ArrowInvalid:
        return None
    lines = np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n")) + (not data.endswith(b"\n"))
    if table.num_rows != lines or table["doc_id"].null_count:
        return None  # blank lines, or rows without a document: told apart row by row
    order = np.argsort(ids := table["doc_id"].to_numpy(), kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        table, ids = table.take(order), ids[order]
    first = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    once = table if len(first) == len(ids) else table.take(first)
    known = [name for name in EXAM if name in schema.names]
    told = [name for name in known if _told(name, once[name].null_count, len(first))]
    scored = [name for name in schema.names if name not in FIXED or name == "filter"]
    hashes = _arrow_digest(once["doc_hash"]) if "doc_hash" in schema.names else _digest([""] * len(first))
    return Samples(
        path=path,
        ids=_names(ids.tobytes())[0],
        columns={name: _arrow_column(table[name]) for name in scored},
        exam={name: _arrow_digest(once[name]) for name in told},
        documents=len(first),
        identity=_names(ids[first].tobytes())[1] + hashes,
    )


@lru_cache(maxsize=64)
def _names(ids: bytes) -> tuple[tuple[str, ...], str]:
    """Names and their digest; the same documents in many runs are named once."""
    names = tuple(map(str, np.frombuffer(ids, dtype=np.int64).tolist()))
    return names, _digest(names)


def _schema(data: bytes) -> pa.Schema | None:
    """Types of the columns, from the first lines; None where they are not plain."""
    kinds: dict[str, pa.DataType] = {}
    for line in io.BytesIO(data).readlines(1 << 18)[:FIRST]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(row, dict):
            return None
        for name, value in row.items():
            if name in NOT_SCORED and name not in FIXED:
                continue
            kind = _kind(value)
            if kind is None or (kinds.get(name, kind) not in (kind, pa.null()) and kind != pa.null()):
                return None
            if kind != pa.null() or name not in kinds:
                kinds[name] = kind
    texts = all(kinds.get(name, pa.string()) in (pa.string(), pa.null()) for name in FIXED[1:])
    if kinds.get("doc_id") != pa.float64() or not texts:
        return None
    kinds["doc_id"] = pa.int64()
    return pa.schema([(name, pa.string() if name in FIXED[1:] else kind) for name, kind in kinds.items()])


def _kind(value: Any) -> pa.DataType | None:
    """Arrow's type for a value; None for what one column cannot hold."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, (int, float)):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, dict):
        inner = {name: _kind(item) for name, item in value.items()}
        if value and all(kind in (pa.string(), pa.float64(), pa.bool_()) for kind in inner.values()):
            return pa.struct(list(inner.items()))
    return None


def _arrow_column(column: pa.ChunkedArray | pa.Array) -> Column:
    if pa.types.is_struct(column.type):
        return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_floating(column.type) or pa.types.is_boolean(column.type):
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    values: list[Any] = column.to_pylist()
    return values


def _arrow_digest(column: pa.ChunkedArray) -> str:
    """As `_digest` of the texts, from Arrow's own memory."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_null(array.type) or array.null_count:
        return _digest([text or "" for text in array.to_pylist()])
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[array.offset : array.offset + len(array) + 1]
    text = memoryview(data)[ends[0] : ends[-1]] if data is not None else b""
    return _hashed(text, np.diff(ends).astype(np.int64))
