"""PyTorch on the CPU in channels_last, eager or compiled: the training loop of its tutorials."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torch_resnet import SPECS, ResNet
from turns import WARM_UP, Turns


class Training:
    """A network with its optimizer and the running sums of what is logged."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Build; with `compiled`, TorchInductor compiles at the first step."""
        network = ResNet(SPECS[options["model"]]).to(memory_format=torch.channels_last)
        self.parameters = sum(p.numel() for p in network.parameters())
        self.optimizer = torch.optim.SGD(
            network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, fused=True
        )
        self.model = torch.compile(network) if options["compiled"] else network
        self.bfloat16 = options["precision"] == "mixed_bfloat16"
        self.loss_sum, self.correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Do one update."""
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        self.optimizer.step()
        self.loss_sum += loss.detach() * len(labels)
        self.correct += (logits.detach().argmax(1) == labels).sum()


class Augmented(Dataset):
    """Batches that are padded by 4, cropped and flipped as a whole, by one indexing operation."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Read the images that `images.py` wrote and pad them once."""
        folder, self.size = options["data"], options["image_size"]
        count, shape = options["images"], (options["images"], self.size, self.size, 3)
        pixels = torch.from_file(
            f"{folder}/images.uint8", size=count * self.size**2 * 3, dtype=torch.uint8
        )
        self.padded = torch.nn.functional.pad(pixels.view(shape), (0, 0, 4, 4, 4, 4))
        self.labels = torch.from_file(f"{folder}/labels.int64", size=count, dtype=torch.int64)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch (n, 3, height, width) in channels_last memory, and its labels."""
        index, pixels = torch.tensor(indices), torch.arange(self.size)
        top, left = torch.randint(0, 9, (2, len(index), 1))
        mirrored = torch.rand(len(index), 1) < 0.5
        rows = top + pixels
        columns = left + torch.where(mirrored, pixels.flip(0), pixels)
        images = self.padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        return images.permute(0, 3, 1, 2), self.labels[index]


def steps(turns: Turns, training: Training) -> None:
    """Time single updates with one batch."""
    size, batch = turns.options["image_size"], turns.options["batch_size"]
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, turns.options["classes"], (batch,))
    for _ in range(WARM_UP):
        training.step(images, labels)
    turns.answer(**facts(training))
    turns.timed_steps(lambda: training.step(images, labels))


def epochs(turns: Turns, training: Training) -> None:
    """Time whole epochs; batches are made between steps, since a worker would need a core."""
    dataset = Augmented(turns.options)
    batch = turns.options["batch_size"]
    sampler = BatchSampler(RandomSampler(dataset), batch, drop_last=True)
    loader = DataLoader(dataset, sampler=sampler, batch_size=None)
    warm_up: Iterator[Any] = iter(loader)
    for _ in range(WARM_UP):
        training.step(*next(warm_up))
    turns.answer(**facts(training))
    while True:
        turns.wait()
        began, done, waited = time.perf_counter(), time.perf_counter(), 0.0
        for images, labels in loader:
            waited += time.perf_counter() - done
            training.step(images, labels)
            done = time.perf_counter()
        training.loss_sum.item()
        end = time.perf_counter()
        turns.report(
            images=len(sampler) * batch,
            seconds=end - began,
            stall_s=end - done,
            input_wait=waited / (end - began),
        )


def facts(training: Training) -> dict[str, Any]:
    """Return the facts for the benchmark, before the first turn."""
    return {"parameters": training.parameters, "versions": {"torch": torch.__version__}}


if __name__ == "__main__":
    turns = Turns()
    training = Training(turns.options)
    epochs(turns, training) if turns.options["data"] else steps(turns, training)
