"""The FusionHead contract, and the layers and losses that methods are made of."""
