"""Residual networks: ResNet-18, 34, 50, 101, deep and small ones for 32 x 32 images."""

from megbrain_py.models.resnet.config import CONFIGS as CONFIGS
from megbrain_py.models.resnet.config import ResNetConfig as ResNetConfig
from megbrain_py.models.resnet.preactivation import PreactivationResNet as PreactivationResNet
from megbrain_py.models.resnet.resnet import ResNet as ResNet
from megbrain_py.models.resnet.resnet import resnet as resnet
