"""The fused kernels in Triton, for PyTorch."""
