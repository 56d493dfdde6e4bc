"""Torch warns of some things once a process; tests must not depend on which of them comes first."""

import torch

torch.set_warn_always(True)
