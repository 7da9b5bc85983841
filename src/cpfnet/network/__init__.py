"""The paper's network, the guide's, baselines under one interface, and their weights.

Nothing is imported here: `cpfnet.network.pretrained.store` answers without waiting for torch.
"""
