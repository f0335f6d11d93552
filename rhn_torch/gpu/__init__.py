"""What only NVIDIA GPUs have: training steps as CUDA graphs, and the recurrence in Triton kernels."""
