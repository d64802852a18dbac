"""A run: a configuration to finished stages to one directory of results, which the same command goes on with."""

from mcu_jax.runs._connect_config import ConnectConfig
from mcu_jax.runs._details import read_details
from mcu_jax.runs._directory import load
from mcu_jax.runs._environment import environment
from mcu_jax.runs._export import export, problem
from mcu_jax.runs._jobs import Plan, Run, connect, from_mapping, from_yaml, plan, tune, unlearn
from mcu_jax.runs._log import Log, TensorBoard
from mcu_jax.runs._observer import Begun, Expected, InterruptedRunError, Observer, Observers, Silent
from mcu_jax.runs._progress import Progress
from mcu_jax.runs._settings import GROUPS, ConfigError, Group, Setting, Train, read_yaml, settings
from mcu_jax.runs._stages import Diverged
from mcu_jax.runs._state import State, state
from mcu_jax.runs._sweep import SweepError, sweep
from mcu_jax.runs._tidy import read_results, read_table
from mcu_jax.runs._tune_config import TuneConfig
from mcu_jax.runs._unlearn_config import Config, MaskConfig, resolve

__all__ = [
    "GROUPS",
    "Begun",
    "Config",
    "ConfigError",
    "ConnectConfig",
    "Diverged",
    "Expected",
    "Group",
    "InterruptedRunError",
    "Log",
    "MaskConfig",
    "Observer",
    "Observers",
    "Plan",
    "Progress",
    "Run",
    "Setting",
    "Silent",
    "State",
    "SweepError",
    "TensorBoard",
    "Train",
    "TuneConfig",
    "connect",
    "environment",
    "export",
    "from_mapping",
    "from_yaml",
    "load",
    "plan",
    "problem",
    "read_details",
    "read_results",
    "read_table",
    "read_yaml",
    "resolve",
    "settings",
    "state",
    "sweep",
    "tune",
    "unlearn",
]
