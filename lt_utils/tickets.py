"""A ticket or supermask as one small file: a bit per weight, the seed, and a description; loaded as an ordinary module.

What the seed and the mask give is not stored: the start weights are drawn again (Zhou et al. 2019, section 5: a
supermask is stored as one bit per weight and a seed). A trained ticket has the values of its weights stored beside.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lt_utils import data, store
from lt_utils.networks import NETWORKS, initial_weights
from lt_utils.runs import Run
from lt_utils.starts import restarted, starting_point
from lt_utils.trainees import rescaling

FORMAT = "lt_utils ticket 1"


def save_ticket(run: Run, path: Path | str, trained: bool = False) -> int:
    """Save the ticket or supermask of a finished run, and return the file's size in bytes.

    With `trained`, the final values of a training are saved, too; they must still be in the store (those of the dense
    network and of the last round of a chain are). Raises `store.Gone` if something is not in the store, ValueError for
    a run that the seed and the mask alone do not give again.
    """
    if run.kind != "train" and trained:
        raise ValueError("a supermask is not trained: save it with trained=False.")
    if run.kind == "train" and not trained and run.mask0 != "zero":
        raise ValueError(f"pruned weights of mask-0 action {run.mask0} aren't zero: save the ticket with trained=True.")
    masks = starting_point(run)[1] if run.kind == "found" else store.mask(run)
    tensors = store.pack(masks)
    if trained:
        _, final, biases = store.weights(run)
        tensors = store.pack([w != 0 for w in final])
        tensors |= {f"values.{i}": w[w != 0] for i, w in enumerate(final)}
        tensors |= {f"bias.{i}": b for i, b in enumerate(biases)}
    description = {"format": FORMAT, "results": run.version, "run": run.describe(), "trained": trained}
    path = Path(path)
    store.write_tensors(path, tensors, description=json.dumps(description))
    return path.stat().st_size


def load_ticket(path: Path | str) -> nn.Sequential:
    """The network of a saved ticket, for images (B, 1, 28, 28) or (B, 3, 32, 32) in [0, 1]: its logits are (B, 10).

    A ticket that was saved untrained has its start weights. Raises ValueError for a file that is damaged or no ticket.
    """
    run, trained, tensors = _read(path)
    masks = store.unpack(run.network, tensors)
    if trained:
        weights = [torch.zeros(m.shape).masked_scatter_(m, tensors[f"values.{i}"]) for i, m in enumerate(masks)]
        return module(run.network, weights, [tensors[f"bias.{i}"] for i in range(len(masks))])
    return module(run.network, [_start(run, i, mask) for i, mask in enumerate(masks)])


def ticket_run(path: Path | str) -> Run:
    """The run whose ticket a file has. Raises ValueError for a file that is damaged or no ticket."""
    return _read(path)[0]


def _read(path: Path | str) -> tuple[Run, bool, dict[str, Tensor]]:
    """Run of a saved ticket, whether it was saved trained, and its tensors."""
    try:
        tensors, metadata = store.read_tensors(Path(path))
        description = json.loads(metadata["description"])
        run = Run(**description["run"])
        if description["format"] != FORMAT or description["results"] != run.version:
            raise ValueError(f"it is of version {description['format']!r}, {description['results']}")
        return run, description["trained"], tensors
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no ticket that can be loaded ({error}): save it again.") from error


def _start(run: Run, i: int, mask: Tensor) -> Tensor:
    """Start weights of layer `i` under its mask, from the seed."""
    initial = initial_weights(run.network, run.seed)[i]
    weights = restarted(replace(run, mask0="zero"), i, initial, initial, initial, mask, ~mask)
    return weights * rescaling(mask.unsqueeze(0).float(), torch.tensor([run.dwr]))[0] if run.dwr else weights


def module(network: str, weights: list[Tensor], biases: list[Tensor] | None = None) -> nn.Sequential:
    """A network as an ordinary module with these weights, a tensor per layer; biases are 0 unless given."""
    parts: list[nn.Module] = [] if NETWORKS[network].dataset == "cifar10" else [nn.Flatten()]
    previous = None
    for i, (layer, weight) in enumerate(zip(NETWORKS[network].layers, weights)):
        if layer.role == "conv":
            own: nn.Module = nn.Conv2d(layer.inputs, layer.outputs, 3, padding=1)
        else:
            if previous and previous.role == "conv":
                parts.append(nn.Flatten())
                side = int((layer.inputs // previous.outputs) ** 0.5)  # ours have the channels last, a module's first
                weight = weight.unflatten(1, (side, side, previous.outputs)).permute(0, 3, 1, 2).flatten(1)
            own = nn.Linear(layer.inputs, layer.outputs)
        own.weight.data = weight.clone()
        own.bias.data = biases[i].clone() if biases else torch.zeros(layer.outputs)
        parts.append(own)
        if layer.role != "output":
            parts.append(nn.ReLU())
        if layer.pool:
            parts.append(nn.MaxPool2d(2))
        previous = layer
    return nn.Sequential(*parts)


@torch.no_grad()
def accuracy(network: nn.Module, dataset: str, images: int = 10_000) -> float:
    """Test accuracy of a module in %, on the first `images` of the test set."""
    test = data.load(dataset).test.first(images)
    shape = (-1, 1, 28, 28) if dataset == "mnist" else (-1, 3, 32, 32)
    hits = [
        (network(x.view(shape)).argmax(1) == y).sum().item()
        for x, y in zip(test.images.split(500), test.labels.split(500))
    ]
    return 100 * sum(hits) / images


def dense_bytes(network: str) -> int:
    """Size of a checkpoint of the dense network: weights and biases as fp32."""
    return 4 * (NETWORKS[network].weights + sum(layer.outputs for layer in NETWORKS[network].layers))
