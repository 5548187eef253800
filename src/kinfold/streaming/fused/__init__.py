"""Kernels that compute distances, logits and sums in one pass on a GPU."""
