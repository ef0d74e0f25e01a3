"""One thread and repeatable examples, so that a failure can be had again."""

import torch
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")
torch.set_num_threads(1)
