"""The paper's networks in PyTorch, built from their specifications in `repro.paper.networks`."""
