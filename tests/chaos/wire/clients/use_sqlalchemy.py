"""SQLAlchemy on psycopg: a connection in AUTOCOMMIT, `begin()`, and the unit of work's flush."""

import os

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

KEY = os.environ["KEY"]


class Base(DeclarativeBase):
    """What is mapped."""


class Effect(Base):
    """A row; both columns together stand in for the primary key that the table does not have."""

    __tablename__ = "effects"
    key: Mapped[str] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(primary_key=True)


def main() -> None:
    """Do the script."""
    engine = sa.create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
    single = engine.execution_options(isolation_level="AUTOCOMMIT")
    count = sa.select(sa.func.count()).select_from(Effect)
    with single.connect() as connection:
        connection.execute(sa.insert(Effect).values(key=KEY, note="autocommit"))
    with engine.begin() as connection:
        connection.execute(count)
        connection.execute(sa.insert(Effect).values(key=KEY, note="transaction"))
    with engine.begin() as connection:
        connection.execute(count)
    with single.connect() as connection:
        connection.execute(sa.update(Effect).where(Effect.key == "nobody").values(note="update"))
    with engine.connect() as connection:
        connection.execute(sa.insert(Effect).values(key=KEY, note="rolled back"))
        connection.rollback()
    with Session(engine) as session:
        session.add_all([Effect(key=KEY, note="flush-1"), Effect(key=KEY, note="flush-2")])
        session.commit()
    engine.dispose()


if __name__ == "__main__":
    main()
