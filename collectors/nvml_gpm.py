"""How active a board's MIG instances are, by NVML's GPM counters (Hopper and newer). Child process only, as nvml.py.

One sample of each GPU instance in a round; between two of them the driver tells a percentage of the time.

    round 1: sample A, B          round 2: sample A, B -> A 100 %, B 25 % of the time between
A round costs two calls for each GPU instance, so there is at most one in LEAST_SECONDS. Finer is of no use where power
is read once a second; coarser puts an instance's joules where none of its requests ran.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import pynvml

from collectors.nvml_samples import NOT_SUPPORTED, Active, MigInstance

LEAST_SECONDS: Final = 0.9
"""Between two rounds: reads that are due each second come a little early at times."""

_UNKNOWN_CALL: Final = frozenset({NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})


class InstanceActivity:
    """Follows the GPU instances of one board, named by their numbers on it. `why` says what keeps it from telling."""

    def __init__(self, handle: Any) -> None:
        self.why = ""
        self._handle = handle
        self._is_supported: bool | None = None
        self._instances: dict[int, _Samples] = {}
        self._round: float | None = None
        self._query = pynvml.c_nvmlGpmMetricsGet_t()
        self._query.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        self._query.numMetrics = 1
        self._query.metrics[0].metricId = pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL

    def follow(self, instances: Iterable[MigInstance]) -> None:
        """These are there now. Samples of GPU instances that went are freed; a new one is sampled in the next round."""
        self.why = ""
        told = [each.gpu_instance for each in instances]
        here = {number for number in told if number is not None}
        for gone in self._instances.keys() - here:
            self._instances.pop(gone).free()
        if None in told:
            self.why = "the driver does not say in which GPU instance each of them lies"
        if not here or not self._supports():
            return
        try:
            for number in sorted(here - self._instances.keys()):
                self._instances[number] = _Samples()
        except pynvml.NVMLError as error:
            self.why = str(error)

    def read(self, tick: float, *, must: bool) -> Active | None:
        """A round at this clock.boot_seconds(); None where there is none to make, or, unless it `must`, not yet.

        What of an instance is not told is absent: its first round, a sample or a metric that failed. 25.0 % is 0.25.
        """
        if not self._instances or (not must and self._round is not None and tick - self._round < LEAST_SECONDS):
            return None
        since, self._round = self._round, tick
        ratios = []
        for instance, samples in self._instances.items():
            try:
                ratio = self._ratio(instance, samples)
            except pynvml.NVMLError as error:
                self.why = str(error)
                continue
            if ratio is not None:
                ratios.append((instance, ratio))
        return Active(since=since, ratios=tuple(ratios))

    def _ratio(self, instance: int, samples: "_Samples") -> float | None:
        had_last, samples.has_last = samples.has_last, False  # after a miss the next would tell of more than its round
        pynvml.nvmlGpmMigSampleGet(self._handle, instance, samples.next)
        samples.last, samples.next = samples.next, samples.last
        samples.has_last = True
        if not had_last:
            return None
        self._query.sample1, self._query.sample2 = samples.next, samples.last
        metric = pynvml.nvmlGpmMetricsGet(self._query).metrics[0]
        if metric.nvmlReturn != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(metric.nvmlReturn)
        return min(metric.value / 100.0, 1.0) if math.isfinite(metric.value) and metric.value >= 0.0 else None

    def _supports(self) -> bool:
        """Asked until it is answered; a board that never will, or a driver before 520, not again."""
        if self._is_supported is None:
            try:
                self._is_supported = bool(pynvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice)
            except pynvml.NVMLError as error:
                if error.value not in _UNKNOWN_CALL:
                    self.why = str(error)
                    return False
                self._is_supported = False
        if not self._is_supported:
            self.why = "board or driver has no GPM counters"
        return self._is_supported


class _Samples:
    """Two buffers of the driver that are swapped: the last sample, if there is one, and the next. Raises NVMLError."""

    def __init__(self) -> None:
        self.last = pynvml.nvmlGpmSampleAlloc()
        try:
            self.next = pynvml.nvmlGpmSampleAlloc()
        except pynvml.NVMLError:
            pynvml.nvmlGpmSampleFree(self.last)
            raise
        self.has_last = False

    def free(self) -> None:
        """What the driver says to it does not matter: the buffer is not used any more."""
        for sample in (self.last, self.next):
            try:
                pynvml.nvmlGpmSampleFree(sample)
            except pynvml.NVMLError:
                continue
