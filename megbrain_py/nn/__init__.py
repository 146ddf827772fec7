"""Modules: named parameters, layers, initialisers, saving and loading."""

from megbrain_py.nn import init as init
from megbrain_py.nn.activation import GELU as GELU
from megbrain_py.nn.activation import Dropout as Dropout
from megbrain_py.nn.activation import Flatten as Flatten
from megbrain_py.nn.activation import Identity as Identity
from megbrain_py.nn.activation import MaxPool2d as MaxPool2d
from megbrain_py.nn.activation import ReLU as ReLU
from megbrain_py.nn.activation import Sigmoid as Sigmoid
from megbrain_py.nn.activation import Tanh as Tanh
from megbrain_py.nn.containers import ModuleList as ModuleList
from megbrain_py.nn.containers import Sequential as Sequential
from megbrain_py.nn.linear import Conv2d as Conv2d
from megbrain_py.nn.linear import ConvTranspose2d as ConvTranspose2d
from megbrain_py.nn.linear import Embedding as Embedding
from megbrain_py.nn.linear import Linear as Linear
from megbrain_py.nn.mode import current_mode as current_mode
from megbrain_py.nn.mode import train_mode as train_mode
from megbrain_py.nn.module import Module as Module
from megbrain_py.nn.normalization import BatchNorm2d as BatchNorm2d
from megbrain_py.nn.normalization import FrozenBatchNorm2d as FrozenBatchNorm2d
from megbrain_py.nn.normalization import GroupNorm as GroupNorm
from megbrain_py.nn.normalization import LayerNorm as LayerNorm
from megbrain_py.nn.normalization import sync_batch_norms as sync_batch_norms
from megbrain_py.nn.serialize import load as load
from megbrain_py.nn.serialize import save as save
from megbrain_py.parameter import Parameter as Parameter
