"""The two ordinary PyTorch loops that the stacked trainer is measured against.

Nothing of `lt_utils` is imported, so that they run as they would on their own. `python -m bench.baselines` reads lines
`NETWORK KIND LOOP DEVICE SECONDS` and answers each with the milliseconds per step that it measured.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

Feed = Iterator[tuple[Tensor, Tensor]]
DATA = Path(os.environ.get("LT_DATA") or Path(__file__).resolve().parent.parent / "data")
CHANNELS = {"fc": (), "conv2": (64,), "conv4": (64, 128), "conv6": (64, 128, 256)}
RATES = {"fc": 1.2e-3, "conv2": 2e-4, "conv4": 3e-4, "conv6": 3e-4}


def model(network: str) -> nn.Sequential:
    """The network as anybody would write it."""
    if network == "fc":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
        )
    parts, depth, side = [], 3, 32
    for width in CHANNELS[network]:
        parts += [nn.Conv2d(depth, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        parts.append(nn.MaxPool2d(2))
        depth, side = width, side // 2
    dense = [nn.Linear(depth * side**2, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*parts, nn.Flatten(), *dense)


@cache
def arrays(network: str) -> dict[str, Tensor]:
    """The data set's uint8 images and labels."""
    return load_file(DATA / f"{'mnist' if network == 'fc' else 'cifar10'}.safetensors")


def idiomatic_feed(network: str, batch: int, device: str) -> Feed:
    """A torchvision data set with ToTensor, and a DataLoader; on a GPU with worker processes and pinned memory."""
    images, labels = arrays(network)["train_images"], arrays(network)["train_labels"].long()
    with tempfile.TemporaryDirectory() as folder:
        kind = datasets.MNIST if network == "fc" else datasets.CIFAR10
        dataset = kind.__new__(kind)  # the class with its own __getitem__, fed with the images that we have already
        dataset.transform, dataset.target_transform, dataset.root = transforms.ToTensor(), None, folder
        dataset.data = images if network == "fc" else images.permute(0, 2, 3, 1).contiguous().numpy()
        dataset.targets = labels if network == "fc" else labels.tolist()
    fast = {"num_workers": min(8, os.cpu_count() or 1), "pin_memory": True, "persistent_workers": True}
    more = fast if device.startswith("cuda") else {}
    loader = DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True, **more)
    while True:
        for x, y in loader:
            yield x.to(device), y.to(device)


def memory_feed(network: str, batch: int, device: str) -> Feed:
    """Tensors in the device's memory, indexed by a permutation."""
    images = arrays(network)["train_images"].to(device).float() / 255
    images, labels = images.view(len(images), -1, *images.shape[-2:]), arrays(network)["train_labels"].long().to(device)
    while True:
        for rows in torch.randperm(len(labels), device=device).split(batch)[:-1]:
            yield images[rows], labels[rows]


def train_loop(network: str, feed: Feed, device: str) -> Iterator[None]:
    """Masked training: gradients of pruned weights are zeroed, Adam."""
    module = model(network).to(device)
    masks = {p: (torch.rand_like(p) < 0.2).float() for p in module.parameters() if p.ndim > 1}
    optimiser = torch.optim.Adam(module.parameters(), lr=RATES[network])
    for images, labels in feed:
        optimiser.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        for weight, mask in masks.items():
            weight.grad.mul_(mask)
        optimiser.step()
        yield


def learned_loop(network: str, feed: Feed, device: str) -> Iterator[None]:
    """Learned supermask: a score per weight, a sampled mask with a straight-through gradient, DWR, SGD."""
    module = model(network).to(device).requires_grad_(False)
    weights = {name: p for name, p in module.named_parameters() if p.ndim > 1}
    scores = {name: torch.zeros_like(w, requires_grad=True) for name, w in weights.items()}
    optimiser = torch.optim.SGD(scores.values(), lr=100.0, momentum=0.9)
    for images, labels in feed:
        masked = {}
        for name, score in scores.items():
            probability = score.sigmoid()
            sample = probability.bernoulli().detach()
            mask = sample + probability - probability.detach()
            masked[name] = weights[name] * mask * (sample.numel() / sample.sum())
        optimiser.zero_grad()
        F.cross_entropy(torch.func.functional_call(module, masked, (images,)), labels).backward()
        optimiser.step()
        yield


@cache
def loop(network: str, kind: str, name: str, device: str) -> Iterator[None]:
    """A loop, warmed up."""
    feed = (idiomatic_feed if name == "idiomatic" else memory_feed)(network, 250 if kind == "learned" else 60, device)
    steps = (learned_loop if kind == "learned" else train_loop)(network, feed, device)
    for _ in range(3):
        next(steps)
    return steps


def measured(network: str, kind: str, name: str, device: str, seconds: float) -> float:
    """Milliseconds per step over about so many seconds."""
    steps, wait = loop(network, kind, name, device), torch.cuda.synchronize if device != "cpu" else lambda: None
    wait()
    number, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or not number:
        next(steps)
        number += 1
    wait()
    return 1000 * (time.perf_counter() - began) / number


if __name__ == "__main__":
    for line in sys.stdin:
        *words, span = line.split()
        print(measured(*words, float(span)), flush=True)
