"""Weights of other programs: torch's .pth and safetensors files in and out, torchvision's names."""

from megbrain_py.weights.file import WeightsFile as WeightsFile
from megbrain_py.weights.file import read_weights as read_weights
from megbrain_py.weights.file import write_weights as write_weights
from megbrain_py.weights.fit import Fit as Fit
from megbrain_py.weights.fit import fit as fit
