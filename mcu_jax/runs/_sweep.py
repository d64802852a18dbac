"""Many runs over the machines of a Ray cluster."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mcu_jax import base
from mcu_jax.runs import _jobs, _settings


class SweepError(RuntimeError):
    """Some of the runs of a sweep failed, the others are finished. failures: what became of them, by run directory."""

    def __init__(self, failures: Mapping[str, str], total: int):
        told = "; ".join(f"{directory}: {why}" for directory, why in failures.items())
        super().__init__(
            f"{len(failures)} of {total} runs failed, the others are finished: {told}. The same sweep goes on with them"
        )
        self.failures = dict(failures)


def sweep(
    configs: Sequence[_settings.Settings], *, retries: int = 3, each: Mapping[str, Any] | None = None
) -> list[_jobs.Run]:
    """Makes every run as one task of Ray, in any order, on whatever machines its cluster has.

    configs: of any jobs; their directories, and what they read, must be found under the same names on every machine.
    retries: how often a run is begun again whose worker is lost; it goes on from its last checkpoint. each: what Ray
    shall reserve for a run, as {"num_gpus": 1} or {"num_cpus": 4}. The cluster is the one that `ray.init` has joined or
    $RAY_ADDRESS names, otherwise this machine. Raises, before any work, UserError without Ray and ConfigError for a
    configuration that cannot be, or that stands there twice; SweepError when all have ended and some failed.
    """
    try:
        import ray
    except ImportError as error:
        raise base.UserError("a sweep needs Ray: pip install 'mcu-jax[ray]'") from error
    if not ray.is_initialized():
        ray.init()  # first of all: it forks, which jax, once it has begun, warns of
    placed = [dataclasses.replace(config, out=os.path.abspath(_jobs.plan(config).directory)) for config in configs]
    twice = [place for place, count in collections.Counter(config.out for config in placed).items() if count > 1]
    if twice:
        raise _settings.ConfigError(f"a sweep makes each run once; {twice[0]} is asked for more than once")
    task = ray.remote(_jobs.run).options(max_retries=retries, **(each or {}))
    finished, failures = [], {}
    for config, started in [(config, task.remote(config)) for config in placed]:
        try:
            finished.append(ray.get(started))
        except ray.exceptions.RayError as error:
            failures[str(config.out)] = str(error).strip().splitlines()[-1]
    if failures:
        raise SweepError(failures, len(placed))
    return finished
