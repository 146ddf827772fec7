"""Define a network, compile its training step, train it on scikit-learn's handwritten digits."""

import numpy as np
from sklearn.datasets import load_digits

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, optim

images, target = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
train, held_back = np.split(np.random.default_rng(0).permutation(len(images)), [1400])
stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
body = nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU())
net = nn.Sequential(stem, body, nn.Flatten(), nn.Linear(1024, 10))
x, label = mb.placeholder("x", (50, 1, 8, 8)), mb.placeholder("label", (50,), "int64")
with nn.train_mode() as updates:  # batch norms use the batch's moments here
    loss = F.cross_entropy(net(x), label)
updates |= optim.SGD(net.parameters()).updates(loss, mb.placeholder("lr", ()))
step = mb.compile({"loss": loss}, updates=updates)  # shapes, memory, kernels: all decided here
for k in range(500):
    rows = np.random.default_rng(k).choice(train, 50, replace=False)
    step(x=images[rows], label=target[rows], lr=optim.cosine(0.05, 500)(k))
classify = mb.function(lambda x: {"logits": net(x)})  # compiled once for each shape it is fed
found = classify(x=images[held_back])["logits"].argmax(1)
print(f"held-back accuracy {np.mean(found == target[held_back]):.4f}")
