"""A run: a configuration to finished stages to one directory of results, which the same command goes on with."""

from mcu_jax.runs._config import ConfigError, Train, read_yaml
from mcu_jax.runs._connect_config import ConnectConfig
from mcu_jax.runs._directory import load
from mcu_jax.runs._environment import environment
from mcu_jax.runs._jobs import Run, connect, from_mapping, from_yaml, plan, unlearn
from mcu_jax.runs._stages import InterruptedRunError, Observer, Silent, StageFailedError
from mcu_jax.runs._unlearn_config import Config, MaskConfig, resolve

__all__ = [
    "Config",
    "ConfigError",
    "ConnectConfig",
    "InterruptedRunError",
    "MaskConfig",
    "Observer",
    "Run",
    "Silent",
    "StageFailedError",
    "Train",
    "connect",
    "environment",
    "from_mapping",
    "from_yaml",
    "load",
    "plan",
    "read_yaml",
    "resolve",
    "unlearn",
]
