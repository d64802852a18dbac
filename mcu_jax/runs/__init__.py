"""A run: a configuration to finished stages to one directory of results, which the same command goes on with."""

from mcu_jax.runs._config import Config, ConfigError, MaskConfig, Train, from_mapping, from_yaml, read_yaml, resolve
from mcu_jax.runs._directory import load
from mcu_jax.runs._environment import environment
from mcu_jax.runs._stages import InterruptedRunError, Observer, Silent, StageFailedError
from mcu_jax.runs._unlearn import Run, plan, unlearn

__all__ = [
    "Config",
    "ConfigError",
    "InterruptedRunError",
    "MaskConfig",
    "Observer",
    "Run",
    "Silent",
    "StageFailedError",
    "Train",
    "environment",
    "from_mapping",
    "from_yaml",
    "load",
    "plan",
    "read_yaml",
    "resolve",
    "unlearn",
]
