"""Training with several threads gives the same gradients every time."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import torch
from transformers import LxmertConfig
from models.lxmert import Lxmert

assert torch.get_num_threads() == 2
torch.manual_seed(0)
config = LxmertConfig(vocab_size=50, hidden_size=64, num_attention_heads=4, intermediate_size=64, l_layers=1, r_layers=1,
                      x_layers=1, visual_feat_dim=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, head="binary")
model = Lxmert(config)
batch = {"features": torch.rand(32, 8, 16), "boxes": torch.rand(32, 8, 4), "input_ids": torch.randint(5, 50, (32, 12))}
batch["attention_mask"] = torch.ones_like(batch["input_ids"])
image_P, text_P = torch.randint(32, (512,)), torch.randint(32, (512,))


def gradient():
    model.zero_grad()
    model.score_pairs(model.encode_images(batch), model.encode_texts(batch), image_P, text_P).square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


first = gradient()
assert all(torch.equal(first, gradient()) for _ in range(10)), "two runs differ"
"""


def test_gradients_do_not_depend_on_the_order_of_threads():
    """In a process of its own: this one must stay at one thread (tests/conftest.py)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
