"""The entry point, `mcu-jax` and `python -m mcu_jax`: Ctrl-C is heeded before anything large is imported."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from here on, nor at the very end

from mcu_jax import interrupts  # noqa: E402


def main() -> None:
    """Runs the command line."""
    with interrupts.heeded(_interrupted):
        from mcu_jax import cli

        cli.main()


def _interrupted() -> None:
    interrupts.end("interrupted; what was finished is kept: give the same command again to go on")


if __name__ == "__main__":
    main()
