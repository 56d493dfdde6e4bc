# Targets: api (no torch, about 0.6 GB) and worker (CPU; CUDA with --build-arg TORCH_INDEX=.../whl/cu130).
FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/venv/bin:$PATH \
    CLUSTERSERVE_DATA_DIR=/data NUMBA_CACHE_DIR=/tmp/numba
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin clusterserve \
    && mkdir /data && chown 10001:10001 /data
VOLUME /data

FROM base AS build-api
WORKDIR /source
RUN python -m venv /venv
COPY pyproject.toml constraints.txt README.md ./
COPY app app
COPY benchmarks benchmarks
COPY clusterserve clusterserve
COPY migrations migrations
COPY models models
COPY workers workers
RUN pip install --no-cache-dir -c constraints.txt .

FROM build-api AS build-worker
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt '.[worker]'

FROM base AS api
COPY --from=build-api /venv /venv
USER 10001
EXPOSE 8000
CMD ["uvicorn", "app.main:create_app", "--factory", "--host", "0.0.0.0", "--port", "8000", \
     "--no-access-log", "--http", "app.api.limited_http:LimitedHttp"]

FROM base AS worker
COPY --from=build-worker /venv /venv
USER 10001
EXPOSE 9101
CMD ["celery", "-A", "workers.celery_app", "worker", "--pool", "threads", "--concurrency", "1", "-Q", "train,io"]
