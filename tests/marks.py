"""Marks that several tests share. What is `thorough` runs in `make test-slow`, of chaos in `make chaos`."""

import pytest

# What a job does is the same on both set-ups but for SQL and storage: `make test` asks the one of several machines.
production_first = pytest.mark.parametrize(
    "settings", [pytest.param("embedded", marks=pytest.mark.thorough), "production"], indirect=True
)
