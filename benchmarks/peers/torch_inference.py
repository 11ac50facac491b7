"""ResNet-50 in PyTorch on the CPU, one image at a time: eager in channels_last, or compiled."""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch_resnet import SPECS, ResNet
from turns import WARM_UP, Turns, peak_memory_mib

_PAUSE, _SECONDS = 0.05, 2.0  # as keras_resnet.export.measure.benchmark_worker has them


def main() -> None:
    """Answer as `benchmark_worker` does."""
    turns = Turns()
    torch.set_num_threads(turns.options["threads"])
    before = peak_memory_mib()
    began = time.perf_counter()
    network = ResNet(SPECS["resnet50"]).to(memory_format=torch.channels_last).eval()
    model = torch.compile(network) if sys.argv[1] == "compiled" else network
    height, width, channels = turns.options["shape"]
    images = torch.randint(0, 256, (turns.options["batch"], channels, height, width)).float()
    images = images.contiguous(memory_format=torch.channels_last)

    def milliseconds(batch: torch.Tensor) -> float:
        start = time.perf_counter()
        model(batch)
        return 1e3 * (time.perf_counter() - start)

    with torch.inference_mode():
        milliseconds(images[:1])
        load_ms = 1e3 * (time.perf_counter() - began)
        for _ in range(WARM_UP):
            milliseconds(images[:1])
            milliseconds(images)
        turns.answer(
            load_ms=round(load_ms, 1),
            memory_before_mib=before,
            batch=len(images),
            image=[height, width, channels],
            bytes=sum(p.numel() * p.element_size() for p in network.state_dict().values()),
            versions={"torch": torch.__version__},
        )
        while runs := turns.wait():
            time.sleep(_PAUSE)
            milliseconds(images[:1])
            start, ms = time.perf_counter(), []
            while len(ms) < runs and (len(ms) < 3 or time.perf_counter() - start < _SECONDS):
                ms.append(milliseconds(images[:1]))
            turns.report(
                ms=ms,
                median_ms=statistics.median(ms),
                images_per_second=1e3 * len(images) / milliseconds(images),
            )


if __name__ == "__main__":
    main()
