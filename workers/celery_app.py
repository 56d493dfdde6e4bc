"""The Celery application: a doorbell, not a queue of record. Run with `celery -A workers.celery_app worker`."""

from celery import Celery

from app.queue import celery_settings
from app.settings import Settings

celery_app = Celery("clusterserve")
celery_app.conf.update(celery_settings(Settings().broker_url), imports=["workers.tasks"])
