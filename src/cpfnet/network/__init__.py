"""The paper's network, the guide's, baselines under one interface, and their weights.

Nothing is imported here, so that `cpfnet.network.pretrained.store` works without waiting for torch.
"""
