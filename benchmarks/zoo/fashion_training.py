"""The cases that are trained here, on Fashion-MNIST: for training with quantisation, pruning and distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.zoo.case import TOP1
from benchmarks.zoo.pictures import fashion, normalised

if TYPE_CHECKING:
    from benchmarks.zoo.case import Case
    from benchmarks.zoo.packages import Packages

_MEAN, _DEVIATION = 0.286, 0.353  # of the training pictures
_EPOCHS, _BATCH, _RATE = 2, 128, 3e-3


def _fit(net: Any, images: Any, labels: Any) -> None:
    """One cycle of the rate (Smith and Topin 2017); the rest of an epoch that fills no batch is left out."""
    import torch

    steps = len(images) // _BATCH
    optimizer = torch.optim.AdamW(net.parameters(), _RATE)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, _EPOCHS * steps)
    net.train()
    for _ in range(_EPOCHS):
        for chosen in torch.randperm(len(images))[: steps * _BATCH].split(_BATCH):
            loss = torch.nn.functional.cross_entropy(net(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
    net.eval()


def trained(packages: Packages, case: Case) -> None:
    """The network of the case's name. Its weights, and so its score, differ a little by machine: threads, kernels."""
    import torch

    from benchmarks.zoo.networks import fashion_nets

    torch.manual_seed(0)
    net = fashion_nets.Net(fashion_nets.NETS[case.folder.name]())
    images, labels = fashion(packages, "train")
    shown = normalised(images, _MEAN, _DEVIATION)
    _fit(net, torch.from_numpy(shown), torch.from_numpy(labels))
    case.network(fashion_nets, net)
    tests, truth = fashion(packages, "t10k")
    case.save("cal", image=shown[20000:20200])
    case.save("eval", image=normalised(tests[:5000], _MEAN, _DEVIATION), labels=truth[:5000])
    case.save("train", image=shown[:20000], labels=labels[:20000])
    case.text("metric.py", TOP1)
    source = f"trained here; {packages.source('dataset-fashion-mnist')}"
    case.close(metric="top-1 accuracy", source=source, licence="MIT")
