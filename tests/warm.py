"""Imports of everything that jobs use, and a first export, which torch prepares for as long as for all later ones."""

import logging

import torch

from models.worth import metrics, stability  # noqa: F401
from workers import assign, ingest, train  # noqa: F401


def up() -> None:
    """Whatever a process does once."""
    for chatty in ("onnxscript", "torch.onnx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with torch.no_grad():
        torch.onnx.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),), dynamo=True, verbose=False)
