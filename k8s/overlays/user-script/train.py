"""A training script of your own: an ordinary loop, and three lines of adpsgd_node."""

import torch
from torch import nn

import adpsgd_node

torch.manual_seed(0)  # the same first model on every node
teacher = nn.Linear(16, 1)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
inputs = torch.randn(20_000, 16)
targets = teacher(inputs).detach()
torch.seed()  # each node draws batches of its own

with adpsgd_node.join(model, optimizer, batch_size=64, dataset_size=len(inputs)) as node:
    while not node.should_stop:
        batch = torch.randint(len(inputs), (64,))
        loss = nn.functional.mse_loss(model(inputs[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        node.log(loss=loss.item())
    node.finish()  # `model` now holds the parameters that all nodes agreed on
