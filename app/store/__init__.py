"""Everything durable: SQL rows and object storage. The only package that imports sqlalchemy, obstore and pyarrow."""

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from app.store.session import Database, after_commit, now

__all__ = ["DBAPIError", "Database", "OperationalError", "Session", "after_commit", "now"]
