"""An interpreter of the PTX that nvcc emits: a test's way to run CUDA kernels without a GPU."""
