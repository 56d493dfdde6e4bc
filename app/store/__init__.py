"""Everything durable: SQL rows and object storage. The only package that imports sqlalchemy, obstore and pyarrow."""

from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app.store.session import Database, after_commit, connect_database, is_passing, now, take_turns

__all__ = [
    "DBAPIError",
    "DataError",
    "Database",
    "OperationalError",
    "PoolTimeout",
    "Session",
    "after_commit",
    "connect_database",
    "is_passing",
    "now",
    "take_turns",
]
