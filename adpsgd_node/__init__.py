"""adpsgd-node: asynchronous decentralized parallel SGD as a peer-to-peer training daemon."""
