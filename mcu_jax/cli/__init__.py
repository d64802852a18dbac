"""The command line, mcu-jax: one file a command, and what they share. Nothing large is imported before it is needed."""

from mcu_jax.cli._main import main, run

__all__ = ["main", "run"]
