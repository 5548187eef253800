"""The fused kernels in Pallas, for JAX."""
