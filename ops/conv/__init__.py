"""Two-dimensional convolution, its two gradients, and transposed convolution."""

from megbrain_py.ops.conv.conv import conv2d as conv2d
from megbrain_py.ops.conv.conv import conv_transpose2d as conv_transpose2d
