"""What a format may show at worst when it is compared with the Keras model, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """What a format may show at worst.

    Attributes:
        agreement: least top-1 agreement with the Keras model, up to ties. On n images the measured
            share has a standard error; two of them below this bound are not yet held against it.
        snr_db: least signal-to-noise ratio of the outputs, in decibels.
        logits: largest error of the logits, relative to the largest |logit|; float formats only.
    """

    agreement: float
    snr_db: float
    logits: float | None = None


# The same float32 operations; other kernels sum in another order.
FLOAT32 = Tolerance(1.0, 60, 1e-4)
# Weights rounded to 11 bits (2^-12 relative), which a hundred layers add up.
FLOAT16 = Tolerance(0.99, 40, 2e-2)
# 8-bit weights: single probabilities near 1/2 may move by tenths. Published int8 ResNets lose up to
# half a point of accuracy; noise of a third of the signal (10 dB) is no rounding. The bars of
# tests/test_bars.py ask 0.98 of our own weights; a network of many like classes agrees less.
INT8 = Tolerance(0.97, 10)
# A bit is 6 dB, so 4-bit weights are 24 dB noisier than the 8-bit ones of tflite-dynamic, whose
# outputs have about 40 dB. That leaves 16; 5 dB, noise of over half the signal, is a fault.
INT4 = Tolerance(0.9, 5)
