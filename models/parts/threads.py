"""How many threads may share a sum, so that one seed gives one result on every machine."""

from threadpoolctl import threadpool_limits

# The sum of two parts does not depend on which comes first; the sum of more does.
REPRODUCIBLE_THREADS = 2


def reproducible_threads() -> threadpool_limits:
    """A context in which BLAS and OpenMP use two threads at most."""
    return threadpool_limits(REPRODUCIBLE_THREADS)
