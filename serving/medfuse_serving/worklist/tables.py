"""The tables of a worklist's database, the same in SQLite and in PostgreSQL."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    event,
)
from sqlalchemy.types import TypeDecorator

from medfuse.types import MODALITIES, Modality
from medfuse_serving.worklist.records import LABEL_CHARACTERS, Status

SCHEMA_VERSION: Final = 1

STATUSES = tuple(Status)


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, kept in UTC; SQLite keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Write it in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read it as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class StatusRank(TypeDecorator[Status]):
    """A status by its rank, so that it sorts in its order."""

    impl = SmallInteger
    cache_ok = True

    def process_bind_param(self, value: Status | None, dialect: Dialect) -> int | None:
        """Write its rank."""
        return None if value is None else STATUSES.index(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Status | None:
        """Find it by its rank."""
        return None if value is None else STATUSES[value]


def to_bits(modalities: tuple[Modality, ...]) -> int:
    """Write a set of modalities as a number: 1 for an image, 2 for a note, 4 for a recording."""
    return sum(2 ** MODALITIES.index(m) for m in modalities)


def from_bits(bits: int) -> tuple[Modality, ...]:
    """Read `to_bits`' number."""
    return tuple(m for i, m in enumerate(MODALITIES) if bits >> i & 1)


# Compared by code points, as Python does; PostgreSQL would otherwise go by its locale.
_Text = String().with_variant(String(collation="C"), "postgresql")

metadata = MetaData()

schema = Table("medfuse_schema", metadata, Column("version", Integer, nullable=False))

studies = Table(
    "medfuse_studies",
    metadata,
    Column("id", _Text, primary_key=True),
    Column("label", String(LABEL_CHARACTERS), nullable=False),
    Column("label_key", _Text, nullable=False),  # case-folded: it is sorted and searched by this
    Column("arrived", UtcTime, nullable=False),
    Column("modalities", SmallInteger, nullable=False),
    Column("status", StatusRank, nullable=False),
    Column("reader", _Text, nullable=False),
    Column("changed", UtcTime, nullable=False),
    Column("digest", String(64), nullable=False),  # of the label and all parts
)

SORTS = {
    "label": studies.c.label_key,
    "arrived": studies.c.arrived,
    "modalities": studies.c.modalities,
    "status": studies.c.status,
    "reader": studies.c.reader,
}
"""What each sort goes by; then by id, so that the order is one and the same on every page."""

for _name, _column in SORTS.items():
    Index(f"medfuse_studies_by_{_name}", _column, studies.c.id)
    if _name != "status":
        Index(f"medfuse_studies_by_status_{_name}", studies.c.status, _column, studies.c.id)
Index("medfuse_studies_by_digest", studies.c.digest)

parts = Table(
    "medfuse_parts",
    metadata,
    Column("study", _Text, ForeignKey(studies.c.id, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("modality", SmallInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# A reading outlives its study, which may be removed; so it has no foreign key.
readings = Table(
    "medfuse_readings",
    metadata,
    Column(
        "number",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("reading", _Text, nullable=False, index=True),
    Column("study", _Text, index=True),
    Column("reader", Text, nullable=False),
    Column("opened_at", UtcTime, nullable=False),
    Column("impression_at", UtcTime),
    Column("answered_at", UtcTime),
    Column("decided_at", UtcTime),
    Column("findings", Text, nullable=False),  # JSON, as the other three below
    Column("impression", Text, nullable=False),
    Column("decision", Text),
    Column("reason", Text, nullable=False),
    Column("wording", Text, nullable=False),
    Column("model_digest", String(64)),
    Column("inputs", Text, nullable=False),
    Column("answer", Text),
    Column("referrals", Text, nullable=False),
    sqlite_autoincrement=True,
)

_REFUSED = "a reading is never changed or deleted"


def _run_after(statement: str, dialect: str) -> None:
    """Have a statement run once the readings' table is made, in one kind of database."""
    ddl = DDL(statement).execute_if(dialect=dialect)  # type: ignore[no-untyped-call]
    event.listen(readings, "after_create", ddl)


for _action in ("UPDATE", "DELETE"):
    _run_after(
        f"CREATE TRIGGER medfuse_no_{_action.lower()} BEFORE {_action} ON medfuse_readings "
        f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END",
        "sqlite",
    )
_run_after(
    "CREATE OR REPLACE FUNCTION medfuse_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$",
    "postgresql",
)
_run_after(
    "CREATE TRIGGER medfuse_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON medfuse_readings "
    "FOR EACH STATEMENT EXECUTE FUNCTION medfuse_refuse()",
    "postgresql",
)
