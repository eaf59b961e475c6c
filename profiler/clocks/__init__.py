"""Clocks (DVFS): what a device offers, holding it at one frequency, and leaving it as it was found."""

from profiler.clocks.choice import choose, find, parse, plan_frequencies
from profiler.clocks.domain import Clock, ClockError, Setting, hertz
from profiler.clocks.journal import recover, state_folder
from profiler.clocks.session import ClockSession
from profiler.clocks.switch import Switch

__all__ = [
    "Clock",
    "ClockError",
    "ClockSession",
    "Setting",
    "Switch",
    "choose",
    "find",
    "hertz",
    "parse",
    "plan_frequencies",
    "recover",
    "state_folder",
]
