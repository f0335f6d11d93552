"""Code for NVIDIA GPUs only: steps as CUDA graphs, and the recurrence in Triton kernels."""
