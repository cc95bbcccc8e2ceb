"""A database's path or URL in, a worklist out: its studies, and what was read of them.

All of it is in one SQLite file by default, or in PostgreSQL. Several processes may use it at once.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Select,
    create_engine,
    event,
    func,
    inspect,
    literal,
    make_url,
    select,
    text,
    tuple_,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from medfuse.errors import InputError, StoreError
from medfuse.types import MODALITIES, Modality, Study
from medfuse_serving.answer import Answer, to_json
from medfuse_serving.report.inputs import each_part, list_inputs
from medfuse_serving.report.record import InputRecord, ReferralRecord
from medfuse_serving.worklist.records import (
    NextQuery,
    NextRow,
    PageQuery,
    Query,
    ReadingLine,
    ReadingStep,
    RowPage,
    Status,
    StudyRow,
    check_label,
)
from medfuse_serving.worklist.tables import (
    SCHEMA_VERSION,
    SORTS,
    from_bits,
    metadata,
    parts,
    readings,
    schema,
    studies,
    to_bits,
)

BUSY_S = 30
"""How long another process's writing is waited for."""

_WRITES = "medfuse_writes"
_LOCK = 0x6D656466  # of PostgreSQL, while the tables are made

_FINDINGS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
_INPUTS: TypeAdapter[tuple[InputRecord, ...]] = TypeAdapter(tuple[InputRecord, ...])
_REFERRALS: TypeAdapter[tuple[ReferralRecord, ...]] = TypeAdapter(tuple[ReferralRecord, ...])


class Store:
    """A worklist in a database.

    Args:
        place: A SQLite file's path, which is made where there is none; or a URL of PostgreSQL.

    Raises:
        StoreError: It cannot be opened, or holds something else.
    """

    def __init__(self, place: str) -> None:
        self._engine = _make_engine(_read_place(place))
        self._writing = self._engine.execution_options(**{_WRITES: True})
        try:
            with self._write() as connection:
                _prepare(connection)
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> "Store":
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the database."""
        self.close()

    # Studies --------------------------------------------------------------------------------------

    def add(self, label: str, study: Study) -> str:
        """Put a study on the worklist, byte for byte, and give its id.

        Raises:
            InputError: It has no part, or its label cannot be used.
            StoreError: The database cannot be used.
        """
        label = check_label(label)
        inputs = list_inputs(study)
        if not inputs:
            raise InputError("the study has no image, no note and no voice; expected at least one")
        now = datetime.now(UTC)
        row = {
            "id": secrets.token_hex(16),
            "label": label,
            "label_key": label.casefold(),
            "arrived": now,
            "modalities": to_bits(tuple({part.modality for part in inputs})),
            "status": Status.WAITING,
            "reader": "",
            "changed": now,
            "digest": digest_study(label, study),
        }
        with self._write() as connection:
            connection.execute(studies.insert(), row)
            for position, (modality, data) in enumerate(each_part(study)):
                values = {
                    "study": row["id"],
                    "position": position,
                    "modality": MODALITIES.index(modality),
                    "sha256": inputs[position].sha256,
                    "data": data,
                }
                connection.execute(parts.insert(), values)
        return str(row["id"])

    def has(self, label: str, study: Study) -> bool:
        """Say whether the same bytes are on the worklist under the same label."""
        wanted = select(func.count()).where(studies.c.digest == digest_study(label, study))
        with self._read() as connection:
            return bool(connection.scalar(wanted))

    def get(self, study_id: str) -> tuple[StudyRow, Study]:
        """Read a study with its parts.

        Raises:
            InputError: It is not on the worklist, or no longer.
            StoreError: A part is not as it was put there.
        """
        ordered = select(parts).where(parts.c.study == study_id).order_by(parts.c.position)
        with self._read() as connection:
            row = _find(connection, study_id)
            found = connection.execute(ordered).all()
        by_modality: dict[Modality, list[bytes]] = {m: [] for m in MODALITIES}
        for part in found:
            if hashlib.sha256(part.data).hexdigest() != part.sha256:
                raise StoreError(
                    "a part of the study is not as it was put on the worklist; restore the "
                    "database from a backup"
                )
            by_modality[MODALITIES[part.modality]].append(part.data)
        study = Study(
            images=tuple(by_modality[Modality.IMAGE]),
            note=next(iter(by_modality[Modality.NOTE]), None),
            voice=next(iter(by_modality[Modality.VOICE]), None),
        )
        return row, study

    def open(self, study_id: str, reader: str) -> StudyRow:
        """Say that a study was opened; one that was read stays read.

        Raises:
            InputError: It is not on the worklist.
        """
        of = (studies.c.id == study_id) & (studies.c.status == Status.WAITING)
        change = {"status": Status.OPENED, "reader": reader, "changed": datetime.now(UTC)}
        with self._write() as connection:
            connection.execute(studies.update().where(of).values(change))
            return _find(connection, study_id)

    def remove(self, study_id: str) -> None:
        """Take a study and its parts off the worklist; what was read of it stays.

        Raises:
            InputError: It is not on the worklist.
        """
        with self._write() as connection:
            _find(connection, study_id)
            connection.execute(studies.delete().where(studies.c.id == study_id))

    def list_rows(self, query: PageQuery) -> RowPage:
        """List some of the studies."""
        with self._read() as connection:
            total = connection.scalar(select(func.count()).select_from(_chosen(query).subquery()))
            found = connection.execute(list_statement(query)).mappings().all()
        return RowPage(total=total or 0, rows=tuple(map(_to_row, found)))

    def find_next(self, query: NextQuery) -> NextRow:
        """Find the next study that waits: after another in the order, or else from its beginning.

        The query's status says which studies are counted for its place; only one that waits is
        found.
        """
        waiting = query.model_copy(update={"status": Status.WAITING})
        first = _ordered(_chosen(waiting), query).limit(1)
        with self._read() as connection:
            found = None
            if query.after is not None:
                here = _first(connection, _by_id(query.after))
                if here is not None:
                    found = _first(connection, first.where(_beyond(query, here)))
            if found is None:
                found = _first(connection, first)
            count = select(func.count()).select_from
            total = connection.scalar(count(_chosen(query).subquery())) or 0
            if found is None:
                return NextRow(row=None, index=0, total=total)
            back = query.model_copy(update={"descending": not query.descending})
            before = _chosen(query).where(_beyond(back, found)).subquery()
            index = connection.scalar(count(before)) or 0
        return NextRow(row=_to_row(found), index=index, total=total)

    # Readings -------------------------------------------------------------------------------------

    def keep(self, step: ReadingStep) -> None:
        """Keep a reading's next step; with a decision, its study is read."""
        values = {
            **step.model_dump(exclude={"findings", "inputs", "answer", "referrals"}),
            "findings": _FINDINGS.dump_json(step.findings).decode(),
            "inputs": _INPUTS.dump_json(step.inputs).decode(),
            "answer": None if step.answer is None else to_json(step.answer),
            "referrals": _REFERRALS.dump_json(step.referrals).decode(),
        }
        with self._write() as connection:
            connection.execute(readings.insert(), values)
            if step.decided_at is not None and step.study is not None:
                change = {"status": Status.READ, "reader": step.reader, "changed": step.decided_at}
                of = studies.c.id == step.study
                connection.execute(studies.update().where(of).values(change))

    def list_readings(self) -> Iterator[ReadingLine]:
        """Give every step of every reading, in the order in which they were kept."""
        joined = readings.outerjoin(studies, readings.c.study == studies.c.id)
        columns = select(readings, studies.c.label).select_from(joined)
        with self._read() as connection:
            for row in connection.execute(columns.order_by(readings.c.number)).mappings():
                yield _to_line(row)

    # Connections ----------------------------------------------------------------------------------

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _telling(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with _telling(), self._writing.begin() as connection:
            yield connection


def digest_study(label: str, study: Study) -> str:
    """Digest a label and a study's bytes, to know the same study again."""
    told = [check_label(label), *(f"{p.modality} {p.sha256}" for p in list_inputs(study))]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def list_statement(query: PageQuery) -> Select[Any]:
    """Write the statement that lists some of the studies."""
    return _ordered(_chosen(query), query).offset(query.offset).limit(query.limit)


def _chosen(query: Query) -> Select[Any]:
    chosen = select(studies)
    if query.text:
        chosen = chosen.where(studies.c.label_key.contains(query.text.casefold(), autoescape=True))
    if query.modality is not None:
        bit = to_bits((query.modality,))
        chosen = chosen.where(studies.c.modalities.bitwise_and(bit) != 0)
    if query.status is not None:
        chosen = chosen.where(studies.c.status == query.status)
    return chosen


def _ordered(chosen: Select[Any], query: Query) -> Select[Any]:
    columns = SORTS[query.sort], studies.c.id
    return chosen.order_by(*(c.desc() if query.descending else c.asc() for c in columns))


def _beyond(query: Query, here: Mapping[Any, Any]) -> ColumnElement[bool]:
    """Give the condition that a study comes after another in an order."""
    column = SORTS[query.sort]
    place = tuple_(column, studies.c.id)
    other = tuple_(literal(here[column], column.type), literal(here["id"], studies.c.id.type))
    return place < other if query.descending else place > other


def _by_id(study_id: str) -> Select[Any]:
    return select(studies).where(studies.c.id == study_id)


def _first(connection: Connection, statement: Select[Any]) -> Mapping[Any, Any] | None:
    return connection.execute(statement).mappings().one_or_none()


def _find(connection: Connection, study_id: str) -> StudyRow:
    row = _first(connection, _by_id(study_id))
    if row is None:
        raise InputError("there is no such study on the worklist, or not any more")
    return _to_row(row)


def _to_row(row: Mapping[Any, Any]) -> StudyRow:
    names = ("id", "label", "arrived", "status", "reader")
    values = {name: row[name] for name in names}
    return StudyRow.model_validate(values | {"modalities": from_bits(row["modalities"])})


def _to_line(row: Mapping[Any, Any]) -> ReadingLine:
    answer = row["answer"]
    return ReadingLine.model_validate(
        {
            **row,
            "findings": _FINDINGS.validate_json(row["findings"]),
            "inputs": _INPUTS.validate_json(row["inputs"]),
            "answer": None if answer is None else Answer.model_validate_json(answer),
            "referrals": _REFERRALS.validate_json(row["referrals"]),
        }
    )


# Opening ------------------------------------------------------------------------------------------


def _read_place(place: str) -> URL:
    """Read a path or URL; nothing of it is in an error, for it may hold a password."""
    if "://" not in place:
        return URL.create("sqlite", database=place)
    try:
        url = make_url(place)
    except (ArgumentError, ValueError) as error:
        raise StoreError(f"the worklist's URL cannot be read; {_EXPECTED}") from error
    name = url.get_backend_name()
    if name == "sqlite" and url.database:
        return URL.create("sqlite", database=url.database)
    if name == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise StoreError(f"the worklist's URL is of {name!r}; {_EXPECTED}")


_EXPECTED = "expected a file's path, or postgresql://USER@HOST/DATABASE"


def _make_engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        _make_file(Path(url.database or ""))
        engine = create_engine(url, connect_args={"timeout": BUSY_S}, hide_parameters=True)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        options = {"connect_timeout": BUSY_S}
        return create_engine(url, connect_args=options, hide_parameters=True, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise StoreError(
            f"PostgreSQL needs {error.name}, which pip install 'medfuse[postgres]' brings"
        ) from error


def _make_file(path: Path) -> None:
    """Make a database's file for its owner alone, since patients' data will be in it."""
    if not path.parent.is_dir():
        raise StoreError(f"{path.parent}: expected a folder for the worklist; make it first")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: the worklist cannot be opened ({error.strerror})") from error


def _set_up_sqlite(connection: Any, _: object) -> None:  # noqa: ANN401 - any DB-API connection
    # SQLAlchemy begins transactions, not Python's sqlite3, which would leave the tables' making
    # and a reader's view of several statements outside of any.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # a removed study's bytes are overwritten
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A reader that begins to write would fail at once where another has written since, so a
    # writer says so at the beginning and waits.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare(connection: Connection) -> None:
    """Make the tables, or see to it that they are of this version."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    names = set(inspect(connection).get_table_names())
    if schema.name not in names:
        if names & set(metadata.tables) or (names and connection.dialect.name == "sqlite"):
            raise StoreError("the database holds something else; give the worklist one of its own")
        metadata.create_all(connection)
        connection.execute(schema.insert(), {"version": SCHEMA_VERSION})
        return
    versions = connection.scalars(select(schema.c.version)).all()
    if versions != [SCHEMA_VERSION]:
        found = ", ".join(map(str, versions)) or "none"
        raise StoreError(
            f"the worklist has schema version {found}; this medfuse reads {SCHEMA_VERSION}: "
            "install the medfuse that made it, or begin a new one"
        )
    if missing := set(metadata.tables) - names:
        raise StoreError(
            f"the worklist lacks {len(missing)} of its tables; restore it from a backup"
        )


@contextmanager
def _telling() -> Iterator[None]:
    """Turn the database's errors into one line without a statement, a value or a URL."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreError(
            f"the worklist's database cannot be used ({type(error).__name__}); see that it is "
            "there, whole and a worklist, and that this user may read and write it"
        ) from error
