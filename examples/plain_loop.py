"""Train a model in a plain loop, together with other nodes: `adpsgd-node up --samples 200000 plain_loop.py`."""

import torch
from torch import nn

import adpsgd_node

torch.manual_seed(0)
teacher = nn.Linear(16, 1)  # what all nodes are to learn
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

with adpsgd_node.join(model, optimizer, batch_size=64) as node:
    while not node.should_stop:
        inputs = torch.randn(64, 16)
        loss = nn.functional.mse_loss(model(inputs), teacher(inputs).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        node.log(loss=loss.item())
    node.finish()  # `model` now holds the parameters that all nodes agreed on
